"""Environments of others, from demonstrations to a report with preset smoke: `make foreign-test`.

The tasks are those of examples/gym. The wheel goes into an environment of its own, as in `tests.package.wheel`, and
what these environments need beside the lock goes there too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .wheel import ROOT, build, install, run

PACKAGES = ("dm-control==1.0.34", "gym-pusht==0.1.8", "shimmy==2.0.1")
EXAMPLES = ROOT / "examples" / "gym"
DEMONSTRATIONS = 12
FEWER = {
    "discover": {"num_envs": 4, "heldout_episodes": 8, "hindsight_episodes": 8},
    "finetune": {"num_envs": 4, "selection": {"episodes": 4}, "ppo": {"minibatch_size": 8}},
    "evaluate": {"num_envs": 4, "episodes": 8, "selection_episodes": 8},
}
"""Preset smoke with fewer episodes: some of these simulators take 10 ms a step."""


def main(tasks: list[str]) -> None:
    """Takes the tasks, all if none is named, through the pipeline; ends with status 1 where one fails."""
    for variable in ("PYTHONPATH", "VIRTUAL_ENV", "BMD_PRESET"):
        os.environ.pop(variable, None)
    with tempfile.TemporaryDirectory() as name:
        environment, project = Path(name, "environment"), Path(name, "project")
        install(build(ROOT, "wheel", Path(name)), environment)
        pins = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "opencv" not in line]
        constraints = Path(name, "constraints.txt")
        constraints.write_text("\n".join(pins))  # gym-pusht wants an older OpenCV
        pip = (sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"))
        run(*pip, "install", "--quiet", "--constraint", str(constraints), *PACKAGES, show=False)
        os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.defpath}"
        for task in tasks or sorted(path.stem for path in EXAMPLES.glob("*.yaml")):
            (project / "config" / "tasks").mkdir(parents=True, exist_ok=True)
            shutil.copy(EXAMPLES / f"{task}.yaml", project / "config" / "tasks")
            start = time.monotonic()
            try_out(task, project)
            print(f"{task}: {time.monotonic() - start:.0f} s from demonstrations to report", flush=True)


def try_out(task: str, project: Path) -> None:
    """Does with a task what docs/own-task.md says."""
    store, report = f"{task}.zarr", f"results/{task}-smoke/report.html"
    run("python", str(EXAMPLES / "demonstrate.py"), task, store, str(DEMONSTRATIONS), cwd=project)
    run("bmd-pipeline", "check-task", task, "--demos", store, cwd=project)
    run("bmd-pipeline", "import-demos", store, "--task", task, "--preset", "smoke", cwd=project)
    (project / "fewer.yaml").write_text(json.dumps(FEWER | {"preset": "smoke"}))  # JSON is YAML
    run(
        "bmd-pipeline", "run", report, "--", "--cores", "2", "--configfile", "fewer.yaml", "--quiet", "all", cwd=project
    )
    if not (project / report).is_file():
        sys.exit(f"error: {report} is missing")


if __name__ == "__main__":
    main(sys.argv[1:])
