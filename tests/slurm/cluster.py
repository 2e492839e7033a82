"""A real Slurm on this machine, and a project that runs on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.lab import ROOT, timeless

SCRIPT = Path(__file__).with_name("cluster.sh")
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "setpriv")
BIN = Path(sys.executable).parent
POLL = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2", "--latency-wait", "5")
"""Snakemake looks after jobs of seconds every two, not every forty."""


@contextmanager
def local_slurm(base: Path, kind: str) -> Iterator[None]:
    """Slurm, from start to stop.

    Args:
        base: a folder for its state.
        kind: `plain` or `accounting`.
    """
    environment = os.environ | {"SLURM_BASE": str(base)}
    try:
        subprocess.run([SCRIPT, "start", kind], env=environment, check=True)
        yield
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, check=True)


class Project:
    """A folder with the workflow, in which Snakemake submits to Slurm.

    Args:
        folder: made anew.
        profile: one of workflow/profiles, for Slurm.
        settings: of the runs, as `--config` takes them.
    """

    def __init__(self, folder: Path, profile: str, *settings: str) -> None:
        self.folder = folder
        self.profile = profile
        self.settings = settings
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("workflow", "config", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "profiles").symlink_to("workflow/profiles")

    def start(self, *arguments: str, local: bool = False) -> subprocess.Popen[str]:
        """Starts Snakemake in a session of its own."""
        where = ("--cores", "2") if local else ("--workflow-profile", f"workflow/profiles/{self.profile}", *POLL)
        environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
        }
        with (self.folder / "snakemake.log").open("a") as log:
            return subprocess.Popen(
                [str(BIN / "snakemake"), *where, *arguments, "--config", *self.settings],
                cwd=self.folder,
                env={name: value for name, value in environment.items() if name != "BMD_PRESET"},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(self, *arguments: str, local: bool = False) -> float:
        """Runs Snakemake to its end; returns the seconds it took.

        Raises:
            RuntimeError: it failed.
        """
        started = time.monotonic()
        if self.start(*arguments, local=local).wait() != 0:
            raise RuntimeError(f"snakemake failed:\n{self.log()[-4000:]}")
        return time.monotonic() - started

    def log(self) -> str:
        """All that Snakemake said here."""
        return (self.folder / "snakemake.log").read_text()

    def hashes(self) -> dict[str, bytes]:
        """Every result and demonstration by name, without what tells when and how fast it was made."""
        return {
            path.relative_to(self.folder).as_posix(): timeless(path)
            for top in ("data", "results")
            for path in sorted((self.folder / top).rglob("*"))
            if path.is_file()
        }


def jobs(*fields: str) -> list[list[str]]:
    """What Slurm knows of its jobs of the last minutes, one row each; fields as `squeue --format` names them."""
    command = ["squeue", "--noheader", "--states=all", f"--format={'|'.join(fields)}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.strip().split("|") for line in text.splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Waits for something to become true.

    Raises:
        TimeoutError: it didn't.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {seconds:g} s")
        time.sleep(0.2)
