"""Environments of others, the tasks of examples/gym, from demonstrations to a report."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from .wheel import ROOT, pip_install, run

EXAMPLES = ROOT / "examples" / "gym"
TASKS = tuple(sorted((path.stem for path in EXAMPLES.glob("*.yaml")), key=lambda task: task != "PushCube"))
"""The one that takes the longest goes first."""
PACKAGES = {"GymPushT": ("gym-pusht==0.1.8",), "Reacher": ("dm-control==1.0.34", "shimmy==2.0.1")}
"""What tasks need beside the lock."""
BY_WORKFLOW = "Pendulum"
"""The task that Snakemake takes to its report, in a process for each stage. Those of the others run in one."""
STAGES = (
    *("pretrain", "discover --seed 0", "finetune --seed 0 --method dppo-bmd"),
    *(f"evaluate --seed 0 --method {method}" for method in ("pretrained", "taught", "dppo-bmd")),
    *("summarise", "report"),
)
ONE_PROCESS = """
import sys
from bmd_pipeline.cli.main import main
for command in sys.argv[1:]:
    print(f"$ bmd-pipeline {command}", flush=True)
    if status := main(command.split()):
        sys.exit(status)
"""
DEMONSTRATIONS = 12
FEWER = {
    "preset": "smoke",
    "methods": ["dppo-bmd"],
    "discover": {"num_envs": 4, "heldout_episodes": 8, "hindsight_episodes": 8},
    "finetune": {"num_envs": 2, "iterations": 1, "selection": {"episodes": 2}, "ppo": {"minibatch_size": 8}},
    "evaluate": {"num_envs": 4, "episodes": 8, "selection_episodes": 8},
}
"""Preset smoke with one method and fewer episodes: some of these simulators take 10 ms a step."""


def install(task: str, environment: Path) -> str:
    """Puts what a task needs into the environment; returns why it can't be had, if so."""
    if task not in PACKAGES:
        return ""
    constraints = environment / "constraints.txt"
    pins = (ROOT / "requirements.lock").read_text().splitlines()
    constraints.write_text("\n".join(pin for pin in pins if "opencv" not in pin))  # gym-pusht wants an older one
    return pip_install("--constraint", str(constraints), *PACKAGES[task], python=environment / "bin" / "python")


def try_out(task: str, project: Path) -> None:
    """Does with a task what docs/own-task.md says."""
    (project / "config" / "tasks").mkdir(parents=True)
    shutil.copy(EXAMPLES / f"{task}.yaml", project / "config" / "tasks")
    (project / "fewer.yaml").write_text(json.dumps(FEWER))  # JSON is YAML
    store, report = f"{task}.zarr", f"results/{task}-smoke/report.html"
    run("python", str(EXAMPLES / "demonstrate.py"), task, store, str(DEMONSTRATIONS), cwd=project)
    workflow = ("bmd-pipeline", "run", report, "--", "--cores", "1", "--configfile", "fewer.yaml", "--quiet", "all")
    stages = () if task == BY_WORKFLOW else STAGES
    commands = [f"check-task {task} --demos {store}"]
    commands += [f"{stage} --task {task} --config fewer.yaml" for stage in (f"import-demos {store}", *stages)]
    run("python", "-c", ONE_PROCESS, *commands, cwd=project)
    if task == BY_WORKFLOW:
        run(*workflow, cwd=project)
    if not (project / report).is_file():
        sys.exit(f"error: {report} is missing")
