"""Runs commands in a process that can't unpickle: `python -m tests.security.sealed COMMANDS.json`.

`pickle.load`, `pickle.loads`, both unpicklers, `torch.load` and whatever they would import refuse. The one exception:
with `--workers`, Python's own multiprocessing may read what our worker processes send through pipes that nobody else
can open.
"""

from __future__ import annotations

import _pickle
import json
import pickle
import sys
from pathlib import Path
from typing import Any, NoReturn

WORKERS = "--workers" in sys.argv


class Unpickled(BaseException):
    """Something was unpickled; no handler of the package may swallow it."""


def refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise Unpickled(f"{sys._getframe(1).f_globals.get('__name__')} unpickles")


def refuse_foreign(data: Any, *arguments: Any, **options: Any) -> Any:
    if sys._getframe(1).f_globals.get("__name__", "").startswith("multiprocessing."):
        return _pickle.loads(data, *arguments, **options)
    return refuse()


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Hears of every class and function that any unpickler looks up, however it was come by."""
    if event != "pickle.find_class":
        return
    frame, callers = sys._getframe(1), []
    while frame is not None:
        callers.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    if not (WORKERS and any(name.startswith("multiprocessing.") for name in callers)):
        raise Unpickled(f"{arguments} by way of {callers[:5]}")


class _Sealed(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Can be derived from, as libraries do, and not used."""

    __init__ = refuse


def seal() -> None:
    """Takes unpickling away, before anything else is imported."""
    sys.addaudithook(watch)
    pickle.load = pickle._load = refuse  # type: ignore[attr-defined]
    pickle.loads = pickle._loads = refuse_foreign if WORKERS else refuse  # type: ignore[attr-defined]
    pickle.Unpickler = pickle._Unpickler = _Sealed  # type: ignore[misc, assignment, attr-defined]

    import torch

    torch.load = refuse


def run() -> str | None:
    """Runs the commands; returns what went wrong."""
    from bmd_pipeline.cli.main import main

    for command in json.loads(Path(sys.argv[1]).read_text()):
        status = main(command)
        if status != 0:
            return f"{command} ended with {status}"
    try:  # and the seal is tight
        pickle.Unpickler(sys.stdin.buffer).load()
    except Unpickled:
        return None
    return "the seal leaks"


if __name__ == "__main__":  # worker processes import this module too, and are not sealed
    seal()
    sys.exit(run())
