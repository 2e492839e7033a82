"""Our speed beside other projects', one row per kind of work: docs/results/speed.json and the tables of speed.md.

Both sides of a row do the same work on the same numbers, which is asserted first. They take turns in one process on
one thread, and the ratio of their processor times is taken within each round: other people's load hits both alike.

    python -m benchmarks.speed [--peers FOLDER] [--rows acting stepping/PushT] [--rounds 15]

FOLDER holds checkouts of other projects, dppo/ and cleanrl/; rows of a peer that is missing are left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers import DPPO, SOURCES, CleanRL, find_checkout, read_commit
from benchmarks.speed_rows import WORK, Sides, Work
from benchmarks.speed_table import (
    PAGE,
    TABLE,
    Ratio,
    Row,
    StartUp,
    describe_machine,
    load_table,
    save_table,
    write_page,
)
from bmd_pipeline.compute import set_matmul
from bmd_pipeline.errors import BMDError
from bmd_pipeline.io.provenance import git_commit

ROOT = Path(__file__).resolve().parent.parent

# ---- Rows ----


def have_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 by units of its own."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "amx_bf16" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def time_call(call: Callable[[], float], kernels: str) -> tuple[float, float]:
    """Processor and wall time of a unit of work, in milliseconds."""
    set_matmul(torch.device("cpu"), "float32", kernels)
    cpu, wall = time.process_time(), time.perf_counter()
    units = call()
    return 1e3 * (time.process_time() - cpu) / units, 1e3 * (time.perf_counter() - wall) / units


def measure(sides: Sides, rounds: int) -> tuple[Ratio, Ratio, float, float]:
    """Ratios of their time to ours, of the processor and of the wall, and both medians of processor time."""
    # ours with the kernels that its settings choose; on AMD's CPUs they are not torch's own
    turns = [(sides.ours, "auto"), (sides.theirs, "mkl")]
    for side, kernels in turns:
        time_call(side, kernels)
    found = np.empty((rounds, 2, 2))  # round, side, clock
    for round_ in range(rounds):
        for index in (0, 1) if round_ % 2 else (1, 0):
            found[round_, index] = time_call(*turns[index])
    cpu, wall = (found[:, 1, clock] / found[:, 0, clock] for clock in (0, 1))
    medians = np.median(found[:, :, 0], axis=0)
    return Ratio.of(cpu), Ratio.of(wall), float(medians[0]), float(medians[1])


# ---- Start-up of commands ----

STARTS = {
    "python": "pass",
    "import bmd_pipeline": "import bmd_pipeline",
    "bmd-pipeline --help": "import sys; sys.argv[1:] = ['--help']; from bmd_pipeline.cli.main import main; main()",
    "bmd-pipeline tasks": "import sys; sys.argv[1:] = ['tasks']; from bmd_pipeline.cli.main import main; main()",
    "import torch": "import torch",
    **{
        f"what {stage} imports": f"import bmd_pipeline.stages.{stage}"
        for stage in ("collect", "pretrain", "discover", "finetune", "evaluate", "report")
    },
}
"""What starts, by name, as code of a new process."""


def measure_start(name: str, rounds: int) -> StartUp:
    """Time of a new process that does it, and the modules that it holds at its end."""
    count = "import atexit, sys; atexit.register(lambda: print('modules', len(sys.modules), file=sys.stderr))\n"
    cpu, wall, modules = [], [], 0
    for _ in range(rounds):
        before, started = os.times(), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", count + STARTS[name]], capture_output=True, text=True, check=True)
        after = os.times()
        wall.append(time.perf_counter() - started)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
        modules = int(done.stderr.rpartition("modules ")[2])
    return StartUp(name=name, cpu_s=statistics.median(cpu), wall_s=statistics.median(wall), modules=modules)


# ---- The command ----


def choose(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The known names that are asked for, by themselves or by the folder that they are in; all for none.

    Raises:
        ValueError: one is not known.
    """
    for name in names:
        if not any(row == name or row.startswith(f"{name}/") for row in known):
            raise ValueError(f"no row {name!r}; there are {', '.join(known)}")
    return [row for row in known if not names or any(row == name or row.startswith(f"{name}/") for name in names)]


class Peers:
    """The other projects, each loaded when it is first asked for."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._loaded: dict[str, Any] = {}

    def missing(self, work: Work) -> str | None:
        """Why a row can't be measured here; None if it can."""
        if work.title.endswith("bfloat16") and not have_bfloat16():
            return "this CPU has no matrix units for bfloat16"
        if work.peer in SOURCES:
            if find_checkout(self._folder, work.peer) is None:
                return f"PEERS has no checkout {work.peer}/ ({SOURCES[work.peer]})"
        elif importlib.util.find_spec(work.peer) is None:
            return f"the package {work.peer} is not installed"
        return None

    def load(self, name: str) -> Any:
        """The peer's modules; None for a package, which rows import themselves."""
        checkout = find_checkout(self._folder, name) if name in SOURCES else None
        if checkout is not None and name not in self._loaded:
            self._loaded[name] = {"dppo": DPPO, "cleanrl": CleanRL}[name](checkout)
        return self._loaded.get(name)

    def version(self, name: str) -> str:
        """Commit of a checkout, version of a package."""
        checkout = find_checkout(self._folder, name) if name in SOURCES else None
        return version(name) if checkout is None else read_commit(checkout)


def measure_row(name: str, peers: Peers, rounds: int, commit: str) -> Row:
    """One row of the table."""
    work = WORK[name]
    load = os.getloadavg()[0]
    sides = work.make(peers.load(work.peer))
    cpu, wall, ours_ms, theirs_ms = measure(sides, rounds)
    return Row(
        name=name,
        title=work.title,
        peer=f"{work.peer} {peers.version(work.peer)}, {work.their}",
        wanted=work.wanted,
        cpu=cpu,
        wall=wall,
        unit=work.unit,
        ours_ms=ours_ms,
        theirs_ms=theirs_ms,
        parity=sides.parity,
        rounds=rounds,
        load=round(load, 1),
        machine=describe_machine(),
        commit=commit,
    )


def main() -> None:
    """Measures rows, and writes each at once; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of checkouts, named as their projects")
    parser.add_argument("--rows", nargs="+", default=[], help="rows, or what their names begin with (default: all)")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    starts = [f"start/{name}" for name in STARTS]
    try:
        chosen = choose(given.rows, [*WORK, *starts])
        table = load_table(ROOT / TABLE)
    except (ValueError, BMDError) as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    commit = git_commit() or version("bmd-pipeline")  # before the first row is written, which edits the checkout
    peers, failed = Peers(given.peers), []
    for name in chosen:
        if name in starts:
            table = table.with_start(measure_start(name.removeprefix("start/"), max(3, given.rounds // 3)))
        elif why := peers.missing(WORK[name]):
            print(f"left out {name}: {why}", flush=True)
            continue
        else:
            try:
                row = measure_row(name, peers, given.rounds, commit)
            except AssertionError as error:
                failed.append(name)
                print(f"failed {name}: {error}", flush=True)
                continue
            print(f"{name}: {row.cpu.median:.2f} × ({row.cpu.min:.2f} to {row.cpu.max:.2f})", flush=True)
            table = table.with_row(row, list(WORK))
        save_table(table, ROOT / TABLE)
    write_page(table, ROOT / PAGE)
    if failed:
        parser.exit(1, f"error: the two sides do not do the same in {', '.join(failed)}\n")


if __name__ == "__main__":
    main()
