"""docs/results/speed.json: how fast we are beside other projects, and the tables of speed.md, made from it alone."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from benchmarks.results_table import read_table
from bmd_pipeline.io.files import write_json, write_text
from bmd_pipeline.metrics.schemas import Block

TABLE = Path("docs/results/speed.json")
PAGE = Path("docs/results/speed.md")


class Ratio(Block):
    """How many times as long the peer takes, over rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, ratios: NDArray[np.float64]) -> Self:
        """That of the ratios (rounds,)."""
        return cls(median=float(np.median(ratios)), min=float(ratios.min()), max=float(ratios.max()))

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.median <= self.max:
            raise ValueError(f"min <= median <= max must hold, got {self.min}, {self.median}, {self.max}")
        return self


class Row(Block):
    """One kind of work, by us and by a peer."""

    name: str
    title: str
    peer: str
    """Its name, commit or version, and which part of it."""
    wanted: float | None
    """The ratio that is aimed at."""
    cpu: Ratio
    """Of processor times."""
    wall: Ratio
    """Of wall times."""
    unit: str
    """What is counted, such as a gradient step."""
    ours_ms: float
    """Processor time of a unit, median over rounds."""
    theirs_ms: float
    parity: str
    """What was found equal before the clock started, and how closely."""
    rounds: int = Field(ge=1)
    load: float
    """Mean number of running processes in the minute before."""
    machine: str
    commit: str


class StartUp(Block):
    """What a new process takes before it does anything: medians over starts."""

    name: str
    cpu_s: float
    wall_s: float
    modules: int
    """Modules that were imported."""


class Growth(Block):
    """One size of what grows, measured in a process of its own."""

    axis: str
    size: int = Field(ge=1)
    seconds: float
    """Processor time of the work."""
    peak_mb: float
    """Largest resident memory of the process."""


class Memory(Block):
    """Resident memory of a process after each thing that it took up."""

    step: str
    rss_mb: float


TARGET = 0.95
"""Success that fine-tuning is timed to."""


class Point(Block):
    """Success after an iteration of fine-tuning."""

    iteration: int
    control_steps: int
    """Taken in training until then."""
    cpu_s: float
    success: float


class FineTuning(Block):
    """A run of fine-tuning, by us or by a peer, until it succeeded or was stopped."""

    side: str
    seed: int
    points: list[Point] = Field(min_length=2)
    """Some of them, from the start to the end."""
    parity: str
    load: float
    """Mean number of running processes in the minute before."""
    machine: str
    commit: str

    @property
    def end(self) -> Point:
        """Where it was stopped."""
        return self.points[-1]


class SpeedTable(Block):
    """speed.json."""

    schema_version: Literal[1]
    rows: list[Row]
    starts: list[StartUp]
    memory: list[Memory]
    growth: list[Growth]
    success: list[FineTuning]
    """The first side is ours."""

    def with_row(self, row: Row, order: Sequence[str]) -> SpeedTable:
        """The table with this row in the place of the one of its name; rows stand in the given order of names."""
        made = {**{old.name: old for old in self.rows}, row.name: row}
        return self.model_copy(update={"rows": [made[name] for name in order if name in made]})

    def with_start(self, start: StartUp) -> SpeedTable:
        """The table with this start in the place of the one of its name."""
        made = {**{old.name: old for old in self.starts}, start.name: start}
        return self.model_copy(update={"starts": list(made.values())})

    def with_run(self, run: FineTuning) -> SpeedTable:
        """The table with this run in the place of the one of its side and seed."""
        made = {**{(old.side, old.seed): old for old in self.success}, (run.side, run.seed): run}
        return self.model_copy(update={"success": list(made.values())})


def load_table(path: Path) -> SpeedTable:
    """Reads a table; an empty one where there is no file.

    Raises:
        ArtifactError: it is damaged or doesn't fit.
    """
    if not path.exists():
        return SpeedTable(schema_version=1, rows=[], starts=[], memory=[], growth=[], success=[])
    return read_table(path, SpeedTable, "speed table")


def save_table(table: SpeedTable, path: Path) -> None:
    """Writes a table."""
    write_json(path, table.model_dump(mode="json"))


def describe_machine() -> str:
    """The processor's name, cores and features that rows depend on, and torch's version."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.is_file() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    amx = " with AMX" if "amx_bf16" in text else ""
    return f"{name[1] if name else platform.machine()}{amx}, {os.cpu_count()} cores, torch {torch.__version__}"


# ---- The tables of speed.md ----


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = "|".join("---:" if column.startswith(">") else "---" for column in head)
    names = " | ".join(column.lstrip(">") for column in head)
    return "\n".join([f"| {names} |", f"|{ruled}|", *(f"| {' | '.join(cells)} |" for cells in rows), ""])


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


def render_rows(table: SpeedTable) -> str:
    """All rows, and below them where and from what they were measured."""
    head = ("work", "peer", ">ours", ">theirs", ">× (CPU)", ">min to max", ">× (wall)", ">wanted", "equal before")
    cells = [
        (
            row.title,
            row.peer,
            _milliseconds(row.ours_ms),
            _milliseconds(row.theirs_ms),
            f"{row.cpu.median:.2f}",
            f"{row.cpu.min:.2f} to {row.cpu.max:.2f}",
            f"{row.wall.median:.2f}",
            "–" if row.wanted is None else f"{row.wanted:g}, {'met' if row.cpu.median >= row.wanted else 'missed'}",
            row.parity,
        )
        for row in table.rows
    ]
    places: dict[str, list[Row]] = {}
    for row in table.rows:
        places.setdefault(f"{row.machine}; commit {shorten(row.commit)}", []).append(row)
    notes = [
        f"- {place}: {len(rows)} of {len(table.rows)} rows, {min(row.rounds for row in rows)} rounds or more, load "
        f"{min(row.load for row in rows):g} to {max(row.load for row in rows):g}."
        for place, rows in places.items()
    ]
    return "\n".join([_table(head, cells), *notes, ""])


def shorten(commit: str) -> str:
    """A commit's first seven digits, and whether the code had been edited since."""
    return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", commit)


def render_starts(table: SpeedTable) -> str:
    """How long processes take to start."""
    rows = [(start.name, f"{start.cpu_s:.2f} s", f"{start.wall_s:.2f} s", f"{start.modules}") for start in table.starts]
    return _table(("process", ">CPU", ">wall", ">modules"), rows)


def render_memory(table: SpeedTable) -> str:
    """What a process holds after each thing that it took up, and by how much it grew."""
    before = [0.0, *(step.rss_mb for step in table.memory)]
    rows = [
        (step.step, f"{step.rss_mb:.0f}", f"{step.rss_mb - old:+.0f}")
        for step, old in zip(table.memory, before, strict=False)
    ]
    return _table(("after", ">MB", ">more"), rows)


def render_growth(table: SpeedTable) -> str:
    """Each axis from its smallest to its largest size, and the exponents of time and memory between the last two."""
    rows = []
    for axis in dict.fromkeys(point.axis for point in table.growth):
        points = sorted((point for point in table.growth if point.axis == axis), key=lambda point: point.size)
        first, last = points[0], points[-1]
        rows.append(
            (
                axis,
                f"{first.size} to {last.size}",
                f"{first.seconds:.3g} to {last.seconds:.3g} s",
                f"{fit_exponent(points):.2f}",
                f"{first.peak_mb:.0f} to {last.peak_mb:.0f} MB",
            )
        )
    return _table(("what grows", ">from, to", ">CPU time", ">exponent", ">peak memory"), rows)


def fit_exponent(points: Sequence[Growth]) -> float:
    """Power of the size that time grows with, between the two largest sizes: 1 is linear."""
    before, last = points[-2:] if len(points) > 1 else (points[0], points[0])
    if before.size == last.size:
        return 0.0
    return float(np.log(last.seconds / before.seconds) / np.log(last.size / before.size))


def render_success(table: SpeedTable) -> str:
    """Each side's time to success, and below where and from what it was measured; ">" for those that were stopped."""
    own = {run.seed: run.end.cpu_s for run in table.success if run.side == table.success[0].side}
    rows = []
    for side in dict.fromkeys(run.side for run in table.success):
        runs = [run for run in table.success if run.side == side]
        reached = sum(run.end.success >= TARGET for run in runs)
        more = "" if reached == len(runs) else "> "
        ratios = [run.end.cpu_s / own[run.seed] for run in runs if run.seed in own]
        rate = median(1e6 * run.end.cpu_s / run.end.control_steps for run in runs)
        rows.append(
            (
                side,
                f"{reached} of {len(runs)}",
                f"{median(run.points[0].success for run in runs):.2f}",
                _spread([run.end.success for run in runs], "{:.2f}"),
                more + _spread([run.end.cpu_s for run in runs], "{:.0f}") + " s",
                f"{median(run.end.control_steps for run in runs) / 1e3:.0f}",
                f"{median(run.end.iteration for run in runs):.0f}",
                f"{rate:.0f} ms",
                more + _spread(ratios, "{:.1f}"),
            )
        )
    head = ("fine-tuned by", f">reached {TARGET:g}", ">success before", ">after", ">CPU time", ">1000 control steps")
    places: dict[str, list[FineTuning]] = {}
    for run in table.success:
        places.setdefault(f"{run.machine}; commit {shorten(run.commit)}; equal before: {run.parity}", []).append(run)
    notes = [
        f"- {place}: {len(runs)} of {len(table.success)} runs, load {min(run.load for run in runs):g} to "
        f"{max(run.load for run in runs):g}."
        for place, runs in places.items()
    ]
    return "\n".join([_table((*head, ">iterations", ">CPU per 1000", ">× ours"), rows), *notes, ""])


def _spread(values: Sequence[float], form: str) -> str:
    """Median, and smallest and largest if there are several."""
    middle, low, high = (form.format(value) for value in (median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


RENDERED = {
    "rows": render_rows,
    "success": render_success,
    "starts": render_starts,
    "memory": render_memory,
    "growth": render_growth,
}
MARKS = re.compile(r"(<!-- speed: (\w+) -->\n).*?(<!-- end speed -->)", re.DOTALL)


def fill(text: str, table: SpeedTable) -> str:
    """The page with its tables made anew, each between its marks."""
    return MARKS.sub(lambda found: found[1] + RENDERED[found[2]](table) + found[3], text)


def write_page(table: SpeedTable, page: Path) -> None:
    """Makes the tables of the page anew."""
    write_text(page, fill(page.read_text(encoding="utf-8"), table))
