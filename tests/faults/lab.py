"""A small finished project to break, and what "nothing was lost" means: the same files as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.readers import leave_out, list_unread
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import BMDError

ROOT = Path(__file__).parents[2]
TASK = "GaussianMixture"
RESULTS = Path("results", f"{TASK}-smoke")

SETTINGS = (
    "collect.num_episodes=60",
    "pretrain.iterations=400",
    "pretrain.log_interval=50",
    "discover.teaching.steps=300",
    "discover.hindsight_episodes=192",
    "discover.heldout_episodes=128",
    "finetune.iterations=6",
    "evaluate.episodes=320",
    "execution.checkpoint_minutes=0.0003",  # every 20 ms, so that kills hit writes too
)


@dataclass(frozen=True)
class Stage:
    """One command of the pipeline.

    Attributes:
        name: what the tables call it.
        argv: the command, without settings.
        outputs: what it makes.
        proof: the file whose presence says that all of it is there.
    """

    name: str
    argv: tuple[str, ...]
    outputs: tuple[Path, ...]
    proof: Path


EVALUATED = ("eval.json", "episodes.parquet", "trajectories.parquet", "trajectories.png", "trajectories.svg")


def _evaluated(method: str) -> tuple[Path, ...]:
    return tuple(RESULTS / method / "seed0" / name for name in EVALUATED)


_DATA, _FINETUNED = Path("data", f"{TASK}-smoke"), RESULTS / "dppo-bmd" / "seed0"
STAGES = (
    Stage("collect", ("collect",), (_DATA,), _DATA / "demos.manifest.json"),
    Stage("pretrain", ("pretrain",), (RESULTS / "policy",), RESULTS / "policy" / "run.json"),
    Stage("discover", ("discover",), (RESULTS / "modes" / "seed0",), RESULTS / "modes" / "seed0" / "run.json"),
    Stage(
        "finetune",
        ("finetune", "--method", "dppo-bmd"),
        tuple(_FINETUNED / name for name in ("finetuned.safetensors", "finetuned.json", "metrics.jsonl", "run.json")),
        _FINETUNED / "run.json",
    ),
    Stage("evaluate", ("evaluate", "--method", "dppo-bmd"), _evaluated("dppo-bmd"), _evaluated("dppo-bmd")[0]),
    Stage(
        "summarise",
        ("summarise", str(_evaluated("dppo-bmd")[0])),
        tuple(RESULTS / name for name in (*EVALUATED, "success_modes.png", "success_modes.svg")),
        RESULTS / "eval.json",
    ),
)
KILLED = STAGES[:-1]
"""Stages that faults are tried on; the last one takes a second."""
RESUMABLE = STAGES[1:4]
"""Stages that save progress; the others start over."""
BY_NAME = {stage.name: stage for stage in STAGES}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: exit status, or minus the signal.
        text: what it printed.
        seconds: how long it took.
    """

    status: int
    text: str
    seconds: float

    @property
    def last_line(self) -> str:
        """Where a refusal stands."""
        return self.text.rstrip().rpartition("\n")[2]


def assign(argv: Sequence[str], settings: Sequence[str]) -> list[str]:
    """Options that give a command those of some settings that it reads; all where they don't go together."""
    method = argv[argv.index("--method") + 1] if "--method" in argv else None

    def load(given: Sequence[str]) -> RunConfig:
        return load_config(TASK, preset="smoke", assignments=given, config_dir=ROOT / "config")

    with suppress(BMDError):
        settings = leave_out(settings, list_unread(load(settings), argv[0], method, settings, load))
    return [part for text in settings for part in ("--set", text)]


class Commands:
    """Starts commands from a process that has imported everything (see `forks`), one at a time.

    Args:
        folder: scratch space.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            cwd=ROOT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()

    def launch(self, folder: Path, argv: Sequence[str], clock: float = 0.0) -> int:
        """Starts a command as it stands; returns its process id."""
        assert self._server.stdin is not None
        request = {"argv": list(argv), "folder": str(folder), "log": str(self.log), "clock": clock}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._hear()

    def wait(self) -> int:
        """Waits for the command that was started last; returns its exit status."""
        return self._hear()

    def close(self) -> None:
        """Ends the process that runs the commands."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _hear(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Lab(Commands):
    """Runs stages in copies of a finished project.

    Args:
        folder: scratch space.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.whole = folder / "whole"
        self.seconds = self.run_all(self.whole)
        self.reference = {stage.name: describe(self.whole, stage) for stage in STAGES}

    def start(self, folder: Path, argv: tuple[str, ...], clock: float = 0.0) -> int:
        """Starts a stage with the settings of the laboratory; returns its process id."""
        common = ["--task", TASK, "--preset", "smoke", "--threads", "1", "--plain", *assign(argv, SETTINGS)]
        return self.launch(folder, (argv[0], *common, *argv[1:]), clock)

    def run(
        self,
        folder: Path,
        stage: Stage,
        *options: str,
        after: float | None = None,
        by: signal.Signals = signal.SIGKILL,
        clock: float = 0.0,
    ) -> Ended:
        """Runs a stage, and sends its process group a signal after so many seconds."""
        started = time.monotonic()
        child = self.start(folder, (*stage.argv, *options), clock)
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):  # it may have ended
                os.killpg(child, by)
        status = self.wait()
        return Ended(status, self.log.read_text(), time.monotonic() - started)

    def run_all(self, project: Path, *options: str, stages: Sequence[Stage] = STAGES) -> dict[str, float]:
        """Runs the whole pipeline, or so much of it, in a new folder; returns the seconds of each stage."""
        shutil.copytree(ROOT / "config", project / "config")
        seconds = {}
        for stage in stages:
            ended = self.run(project, stage, *options)
            if ended.status != 0:
                raise RuntimeError(f"{stage.name} fails without any fault: {ended.text}")
            seconds[stage.name] = ended.seconds
        return seconds

    def copy(self, stage: Stage, project: Path | None = None) -> Path:
        """A project in which everything before a stage is done; in the scratch space if no folder is given."""
        project = project or self.folder / "project"
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(self.whole, project, copy_function=shutil.copy2)
        for later in STAGES[STAGES.index(stage) :]:
            remove(project, later)
        return project


def remove(project: Path, stage: Stage) -> None:
    """Deletes what a stage has made."""
    for output in stage.outputs:
        path = project / output
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def describe(project: Path, stage: Stage) -> dict[str, str]:
    """Hash of everything that a stage left, by name, without what tells when and how fast it ran."""
    found = {}
    for output in stage.outputs:
        path = project / output
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        for file in sorted(files):
            name = file.relative_to(project).as_posix()
            found[name] = hashlib.sha256(timeless(file)).hexdigest() if file.exists() else "missing"
    return found


def leftovers(project: Path) -> list[str]:
    """Files that only a stage at work may have."""
    return sorted(
        path.relative_to(project).as_posix()
        for path in project.rglob("*")
        if path.name == "checkpoints" or path.name.startswith(".")
    )


MAY_DIFFER = {
    "wall_s": "how long it took",
    "cpu_seconds": "how much of it computed",
    "command": "how it was called",
    "threads": "how many cores it was given",
    "inputs": "hashes of files that hold times",
    "git_commit": "says whether the source tree has been edited",
    "sha256": "of a whole document, with these fields",
}
"""Fields of JSON documents that may differ between two runs of the same settings, and why."""


def timeless(path: Path) -> bytes:
    if path.suffix == ".jsonl":
        return json.dumps([_drop(json.loads(line)) for line in path.read_text().splitlines()]).encode()
    if path.suffix == ".json" and path.name != "zarr.json":
        return json.dumps(_drop(json.loads(path.read_text()))).encode()
    return path.read_bytes()


def _drop(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: _drop(part) for name, part in value.items() if name not in MAY_DIFFER}
        if "outputs" in kept:  # metrics.jsonl holds times, and is compared itself
            kept["outputs"] = {name: part for name, part in kept["outputs"].items() if name != "metrics.jsonl"}
        return kept
    return value
