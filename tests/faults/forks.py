"""A process that has imported everything and forks a copy of itself per command: starting a stage costs nothing.

Reads one JSON request per line, `{"argv": [...], "folder": "...", "log": "...", "clock": 0}`, answers with the
process id, and, once the process has ended, with its exit status (negative: the signal that ended it). `clock` sets the
wall clock back by that many seconds every time it is read.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import count
from typing import Any, NoReturn

import torch

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.hashing import STAGES, source_hash
from bmd_pipeline.tasks.gaussian_mixture import env, expert, modes  # noqa: F401


def serve() -> None:
    """Answers requests until stdin ends."""
    torch.set_num_threads(1)  # a fork copies no threads
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports a lot
    for stage in STAGES:
        source_hash(stage, "bmd_pipeline.tasks.gaussian_mixture")
    tell(0)  # ready
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        tell(child)
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def run(argv: list[str], folder: str, log: str, clock: float) -> NoReturn:
    """Becomes the command; whoever kills its process group kills its workers too."""
    status = 1
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if clock:
            turn_back(clock)
        status = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def turn_back(seconds: float) -> None:
    """Lets the wall clock go backwards."""
    now, reads = time.time(), count()
    wrong: Any = lambda: now - seconds * next(reads)  # noqa: E731
    time.time = wrong


if __name__ == "__main__":
    serve()
