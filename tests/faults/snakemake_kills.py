"""SIGKILL of Snakemake itself, with all its jobs or without them, and that running it again finishes."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from .lab import RESULTS, ROOT, Lab, timeless

BIN = Path(sys.executable).parent
TARGET = str(RESULTS / "dppo-bmd" / "seed0" / "eval.json")  # one job of every stage
SETTINGS = ("preset=smoke",)


class Workflow:
    """A project that Snakemake runs in, and the files of an undisturbed run.

    Args:
        lab: whose scratch space to use.
    """

    def __init__(self, lab: Lab) -> None:
        self.folder = lab.folder / "workflow"
        self.begin_anew()
        started = time.monotonic()
        if self._run().returncode != 0:
            raise RuntimeError("the workflow fails without any fault")
        self.seconds = time.monotonic() - started
        self.reference = self._describe()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Makes an empty project."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name in ("workflow", "config", "envs"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "Snakefile", self.folder)
        (self.folder / "profiles").symlink_to("workflow/profiles")

    def kill(self, rng: random.Random, *, jobs_too: bool) -> str:
        """Kills a run at a random moment; returns whether it had finished.

        Args:
            rng: when.
            jobs_too: as when the machine goes down; else only Snakemake's own process is killed.
        """
        started = time.monotonic()
        session = self._start()
        with suppress(subprocess.TimeoutExpired):
            session.wait(rng.uniform(0.1, 0.8) * self.seconds)
        finished = session.returncode == 0
        if finished:
            self.seconds = time.monotonic() - started  # the machine has become faster
            self._require_whole()
            self.begin_anew()
            return "had finished"
        session.kill()
        if jobs_too:
            for process in members(session.pid):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        session.wait()
        unlocked = self._run("--unlock")
        assert unlocked.returncode == 0, unlocked.stderr
        return "went on later"

    def finish(self) -> None:
        """Runs it to the end; the files must be those of an undisturbed run."""
        done = self._run()
        assert done.returncode == 0, done.stdout + done.stderr
        self._require_whole()

    def _require_whole(self) -> None:
        found = self._describe()
        different = [name for name in found | self.reference if found.get(name) != self.reference.get(name)]
        assert not different, f"{different} differ from an undisturbed run"

    def _describe(self) -> dict[str, str]:
        files = [path for root in ("data", "results") for path in (self.folder / root).rglob("*") if path.is_file()]
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(timeless(path)).hexdigest()
            for path in files
            if path.name != ".snakemake_timestamp"
        }

    def _run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*options),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command(),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _command(self, *options: str) -> list[str]:
        return [str(BIN / "snakemake"), "--cores", "2", *options, TARGET, "--config", *SETTINGS]

    def _environment(self) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if name != "BMD_PRESET"}
        path = f"{BIN}{os.pathsep}{variables['PATH']}"
        return variables | {"PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


def members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, owner = entry.read_text().rpartition(")")[2].split()[:4]
            found += [int(entry.parent.name)] * (int(owner) == session and state != "Z")
    return found
