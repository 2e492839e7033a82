"""docs/own-task.md is what it says: its files make a task, and its commands run, with demonstrations and a policy."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import bmd_pipeline
from bmd_pipeline.io.files import hash_tree
from tests.workflow.conftest import BIN, ROOT, Project, make_project

pytestmark = pytest.mark.workflow

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "own-task.md").read_text(), flags=re.DOTALL)
FILES = {text.splitlines()[0].removeprefix("# "): text for language, text in BLOCKS if language != "sh"}
GYM_COMMANDS, TASK_COMMANDS, DEMOS_COMMANDS, POLICY_COMMANDS = (text for language, text in BLOCKS if language == "sh")
EXPERT = "my_robot/my_task/expert.py"


def write_files(project: Project) -> None:
    for name, text in FILES.items():
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(project: Project, commands: str) -> subprocess.CompletedProcess[str]:
    """Gives commands to a shell, in which the package is installed."""
    source = str(Path(bmd_pipeline.__file__).parents[1])
    return subprocess.run(
        ["bash", "-e", "-c", commands.replace("$PWD", f"$PWD:{source}")],
        cwd=project.folder,
        env={
            **{name: value for name, value in os.environ.items() if name != "BMD_PRESET"},
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{project.folder}:{source}",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def succeed(project: Project, commands: str) -> str:
    done = run(project, commands)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the page's task, after the page's first commands."""
    project = make_project(tmp_path_factory.mktemp("own") / "project")
    write_files(project)
    succeed(project, TASK_COMMANDS)
    return project


def test_the_task_runs_to_its_end(made: Project) -> None:
    document = json.loads((made.folder / "results/MyTask-smoke/eval.json").read_text())
    assert set(document["policies"]) == {"pretrained", "taught", "dppo", "dppo-bmd"}


def test_an_environment_of_others_needs_no_python(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    name = "config/tasks/Pendulum.yaml"
    (project.folder / name).write_text(FILES[name])
    (project.folder / "examples").symlink_to(ROOT / "examples")
    succeed(project, GYM_COMMANDS.replace("report.html", "policy/run.json"))
    assert json.loads((project.folder / "results/Pendulum-smoke/policy/run.json").read_text())["inputs"]["demos"]


def test_the_task_is_listed_and_has_a_schema(made: Project) -> None:
    out = succeed(made, "bmd-pipeline tasks; bmd-pipeline config schema --task MyTask | grep -c '\"horizon\"'")
    assert ["MyTask", "native", "2", "2", "20", "2"] in [line.split()[:6] for line in out.splitlines()]
    assert out.splitlines()[-1] != "0"


def test_own_demonstrations_do_without_an_expert(made: Project, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    write_files(project)
    (project.folder / EXPERT).unlink()
    checked = succeed(project, "bmd-pipeline check-task MyTask")
    assert re.search(r"^skipped +expert .*`collect` and `play` of the expert need one", checked, flags=re.MULTILINE)
    refused = run(project, "snakemake --dry-run --cores 2 results/MyTask/eval.json")
    assert refused.returncode != 0
    assert refused.stderr.splitlines()[-1].startswith("error: task MyTask has no module my_robot.my_task.expert: ")
    succeed(project, DEMOS_COMMANDS.replace("eval.json", "policy/run.json"))
    store = project.folder / "my_demos.zarr"
    record = json.loads((project.folder / "results/MyTask-smoke/policy/run.json").read_text())
    assert record["inputs"] == {"demos": {"path": "data/MyTask-smoke/demos.zarr", "sha256": hash_tree(store)}}
    succeed(project, POLICY_COMMANDS.replace("eval.json", "modes/seed0/run.json"))
    assert json.loads((project.folder / "results/MyTask-smoke/policy/run.json").read_text())["imported"] is True
    policy = [project.folder / folder / "policy.safetensors" for folder in ("my_policy", "results/MyTask-smoke/policy")]
    assert policy[0].read_bytes() == policy[1].read_bytes()
