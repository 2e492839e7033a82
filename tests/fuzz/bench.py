"""A finished project to feed with garbage, and what must hold whatever it is fed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..faults.lab import ROOT, TASK, Commands, Ended, assign

RESULTS = Path("results", f"{TASK}-smoke")
FINETUNED = RESULTS / "dppo-bmd" / "seed0"
SETTINGS = (
    "collect.num_episodes=16",
    "pretrain.iterations=150",
    "discover.heldout_episodes=16",
    "discover.hindsight_episodes=16",
    "finetune.iterations=1",
    "evaluate.episodes=16",
    "evaluate.num_envs=16",
)
"""Everything in a second."""
CHAIN = (
    ("collect",),
    ("pretrain",),
    ("discover",),
    ("finetune", "--method", "dppo"),
    ("finetune", "--method", "dppo-bmd"),
    *(("evaluate", "--method", method) for method in ("pretrained", "taught", "dppo", "dppo-bmd")),
    ("summarise",),
    ("compare",),
    ("verdict",),
    ("report",),
)
SECONDS = 300.0
"""Whatever takes longer hangs."""


def with_settings(argv: Sequence[str], settings: Sequence[str] = SETTINGS) -> list[str]:
    """A stage's command on the small task."""
    given = assign(argv, settings)
    return [argv[0], "--task", TASK, "--preset", "smoke", "--threads", "1", "--plain", *given, *argv[1:]]


class Bench(Commands):
    """Runs commands in copies of a finished project.

    Args:
        folder: scratch space.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.empty, self.whole = folder / "empty", folder / "whole"
        for project in (self.empty, self.whole):
            shutil.copytree(ROOT / "config", project / "config")
        for argv in CHAIN:
            ended = self.call(self.whole, with_settings(argv))
            if ended.status != 0:
                raise RuntimeError(f"{argv} fails without garbage: {ended.text}")

    def call(self, project: Path, argv: Sequence[str]) -> Ended:
        """Runs a command to its end, or to its timeout."""
        child = self.launch(project, argv)
        timer = threading.Timer(SECONDS, _end, (child,))
        timer.start()
        status = self._hear()
        timer.cancel()
        return Ended(status, self.log.read_text(errors="replace"), 0.0)

    def copy(self, *, finished: bool) -> Path:
        """A project of its own, in which everything or nothing is done."""
        project = self.folder / "project"
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(self.whole if finished else self.empty, project)
        return project

    def refuse_or_finish(self, project: Path, argv: Sequence[str], *, stops: bool = False) -> Ended:
        """Runs a command and checks that it finished, or refused in one line and left everything as it was.

        Args:
            project: where.
            argv: the command.
            stops: whether it was given a time limit.
        """
        before = _list_files(project)
        ended = self.call(project, argv)
        shown = f"{json.dumps(list(argv))[:2000]}\nstatus {ended.status}: {ended.text[-1500:]}"
        assert ended.status in (0, 2, *((75,) if stops else ())), shown
        assert "Traceback" not in ended.text, shown
        assert not list(self.folder.rglob("pwned")), shown
        if ended.status == 2:
            assert ended.last_line.startswith("error: "), shown
            assert len(ended.last_line) < 1000, shown
            after = _list_files(project)
            assert after.items() <= before.items(), f"something was left: {shown}"
            # Training that fails has withdrawn what says that the old output is whole, and nothing else.
            gone = {Path(name).name for name in before.keys() - after.keys()}
            assert gone <= {"run.json"}, f"something is gone: {shown}"
        return ended


def _end(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _list_files(project: Path) -> dict[str, tuple[int, int]]:
    """Files by name with size and time, without the progress that a stage may keep, and its log of metrics."""
    found = {}
    for path in project.rglob("*"):
        if path.is_file() and "checkpoints" not in path.parts and path.name != "metrics.jsonl":
            state = path.stat()
            found[path.relative_to(project).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found
