"""The package as others meet it: `make package-test`.

1. `wheel`: what wheel and sdist hold, and the quick task from the installed wheel.
2. `formats`: demonstrations to and from other projects' own libraries.
3. `foreign`: environments of others, from demonstrations to a report.
4. `own`: docs/own-task.md as it stands, and own demonstrations and policies in the workflow, by pytest.

The first three use one environment with the wheel. Words choose among parts, libraries and tasks. What pip can't
install here is named and left out.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bmd_pipeline.config.resources import usable_cores

from . import foreign, formats, wheel

PARTS = {"own": ("own",), "wheel": ("wheel",), "formats": tuple(formats.LIBRARIES), "foreign": foreign.TASKS}


def main(words: list[str]) -> None:
    """Ends with status 1 where something is not as it should be."""
    names = [name for word in words or PARTS for name in PARTS.get(word, (word,))]
    known = dict.fromkeys((*PARTS, *(name for part in PARTS.values() for name in part)))
    if unknown := set(names).difference(known):
        sys.exit(f"error: {', '.join(sorted(unknown))} is none of {', '.join(known)}")
    for variable in ("PYTHONPATH", "VIRTUAL_ENV", "BMD_PRESET"):
        os.environ.pop(variable, None)
    if "own" in names:
        workers = ("--numprocesses", str(usable_cores()), "--dist", "loadfile")
        wheel.run(sys.executable, "-m", "pytest", *workers, str(Path(__file__).parent), cwd=wheel.ROOT)
    if packaged := [name for name in names if name != "own"]:
        try_out_wheel(packaged)


def try_out_wheel(names: list[str]) -> None:
    """Installs the wheel into a new environment, and tries these parts in it."""
    with tempfile.TemporaryDirectory() as name:
        folder, lacking = Path(name), dict[str, str]()
        environment = folder / "environment"
        wheel.install(wheel.make_wheel(folder), environment)
        os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.defpath}"
        if "wheel" in names:
            wheel.try_out(folder)
        os.environ["OMP_NUM_THREADS"] = "1"  # from here on there is a job for each core

        libraries = [name for name in names if name in formats.LIBRARIES]
        lacking |= {name: reason for name in libraries if (reason := formats.install(name))}
        if found := [name for name in libraries if name not in lacking]:
            formats.make_demonstrations(folder)
            for_each(found, lambda name: formats.try_out(name, folder))

        tasks = [name for name in names if name in foreign.TASKS]
        lacking |= {name: reason for name in tasks if (reason := foreign.install(name, environment))}
        for_each([name for name in tasks if name not in lacking], lambda name: foreign.try_out(name, folder / name))
    for name, reason in lacking.items():
        print(f"warning: {name} was left out, since pip can't install what it needs here: {reason}", file=sys.stderr)


def for_each(names: Iterable[str], work: Callable[[str], None]) -> None:
    """Does work for each name, as many at a time as there are cores; the first failure ends the check."""

    def do(name: str) -> None:
        start = time.monotonic()
        work(name)
        print(f"{name}: all of it in {time.monotonic() - start:.0f} s", flush=True)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(do, names))


if __name__ == "__main__":
    main(sys.argv[1:])
