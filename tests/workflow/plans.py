"""Snakemake's dry runs, each in a fork of a process that has imported Snakemake: two thirds of a plan are imports.

What is printed is the same, but for the run directory, which Snakemake notes when it is imported.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["snakemake.cli", "bmd_pipeline.workflow", __name__])


def plan(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Does what `snakemake` with these arguments would, in a folder and an environment.

    Raises:
        TimeoutExpired: it took longer.
    """
    with tempfile.TemporaryDirectory() as name:
        outputs = [str(Path(name, stream)) for stream in ("stdout", "stderr")]
        child = _FORKS.Process(target=_run, args=(list(arguments), str(folder), dict(environment), outputs))
        child.start()
        child.join(timeout_s)
        if child.exitcode is None:
            child.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        stdout, stderr = (Path(output).read_text() for output in outputs)
    return subprocess.CompletedProcess(list(arguments), child.exitcode, stdout, stderr)


def _run(arguments: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
    for stream, output in enumerate(outputs, 1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main(arguments)
