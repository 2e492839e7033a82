"""docs/results/table.json: every row of the repository's result tables, with the numbers behind it.

README.md and docs/results/*.md hold tables that `benchmarks.tables` makes from this file, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import read_json, write_json
from bmd_pipeline.metrics.schemas import Block

Table = TypeVar("Table", bound=BaseModel)
SCHEMA_VERSION = 1
TABLE = Path("docs/results/table.json")
METRICS = (
    "success_rate",
    "present",
    "solved",
    "mode_entropy",
    "obeyed",
    "obeyed_worst",
    "episode_return",
)
"""Fields of a row that are measured, under eval.json's names."""
FURTHER = (
    "mode_spread",
    *(
        f"blocked/{which}/{answer}/{score}"
        for which in ("favourite", "any_mode")
        for answer in ("retry", "told", "thompson")
        for score in ("success", "trials")
    ),
)
"""Measures that some evaluations lack, under eval.json's names."""


class Number(Block):
    """A mean with its interval: Student's t over base policies; of one alone, eval.json's over its episodes."""

    mean: float
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"low <= mean <= high must hold, got {self.low}, {self.mean}, {self.high}")
        return self


class BaseRow(Block):
    """What one base policy gave, mean over its fine-tuning seeds."""

    base: int = Field(ge=0)
    """Its root seed."""
    success_rate: float
    present: float
    solved: float
    mode_entropy: float
    obeyed: float
    obeyed_worst: float
    episode_return: float
    further: dict[str, float] = {}
    """Those of `FURTHER` that were measured."""


class CodeEntry(Block):
    """One code of one run."""

    base: int
    seed: int
    code: int
    behaviour: str | None
    """The true mode that it asks for; null without a success on selection seeds."""
    success_rate: float
    obeyed: float
    mode_shares: dict[str, float]
    """Share of each true mode among its successes."""


class ModeEntry(Block):
    """One true mode, mean over base policies."""

    mode: str
    share: float
    """Share of the successes."""
    success_rate: float


class Costs(Block):
    """What a run took, mean over runs: fine-tuning, or the stage that made a policy before it."""

    iterations: float | None
    """Rounds of fine-tuning; null before it."""
    gradient_steps: float | None
    """Policy steps of all iterations; null before fine-tuning."""
    gradient_steps_kept: float | None
    """Those up to the iteration that was kept."""
    control_steps: float | None
    """Control steps of all training rollouts, without those on selection seeds; null before fine-tuning."""
    control_steps_kept: float | None
    """Those up to the iteration that was kept."""
    cpu_seconds: float
    wall_s: float


class Row(Block):
    """One policy on one task."""

    task: str
    method: str
    """pretrained, taught or a fine-tuning method."""
    form: Literal["coded", "published", "none"]
    """How it has its codes: in the policy (ours), as published, or none."""
    variant: str = ""
    """What differs from the task's settings, such as "lambda 0", or a control's name."""
    world: str = "own"
    """own: the demonstrations' world; else the disturbance that fine-tuning and evaluation met."""
    success_rate: Number
    present: Number
    solved: Number
    mode_entropy: Number
    obeyed: Number
    obeyed_worst: Number
    episode_return: Number
    further: dict[str, Number] = {}
    """Those of `FURTHER` that were measured."""
    total_modes: int = Field(ge=1)
    tau: float
    confidence: float
    bases: list[BaseRow] = Field(min_length=1)
    """By root seed."""
    seeds: list[int] = Field(min_length=1)
    """Fine-tuning seeds on each base policy."""
    episodes: int = Field(ge=1)
    """Evaluation episodes of each run."""
    codes: list[CodeEntry]
    modes: list[ModeEntry] = Field(min_length=1)
    costs: Costs
    machine: str
    commit: str
    command: str
    """The command line of the first run's stage."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes it another row than the others."""
        return self.task, self.world, self.method, self.form, self.variant


class ResultsTable(Block):
    """table.json."""

    schema_version: Literal[1]
    rows: list[Row]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        keys = [row.key for row in self.rows]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"two rows are {', '.join(filter(None, twice[0]))}")
        return self

    def with_rows(self, rows: list[Row]) -> ResultsTable:
        """The table with these rows, each in the place of the one that it makes again."""
        made = {row.key: row for row in (*self.rows, *rows)}
        return ResultsTable(schema_version=SCHEMA_VERSION, rows=sorted(made.values(), key=_place))


def _place(row: Row) -> tuple[str, str, int, str, str, str]:
    before = ("pretrained", "taught")
    place = before.index(row.method) if row.method in before else len(before)
    return row.task, row.world, place, row.method, row.form, row.variant


def load_table(path: Path) -> ResultsTable:
    """Reads a table; errors as of `read_table`."""
    return read_table(path, ResultsTable, "results table")


def read_table(path: Path, model: type[Table], what: str) -> Table:
    """Reads a JSON file as what a model describes; types are not converted and unknown fields are refused.

    Raises:
        ArtifactError: it is missing, damaged or doesn't fit.
    """
    read_json(path, what)
    try:
        return model.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{what}: {path} doesn't fit: {where}: {first['msg']}") from None


def save_table(table: ResultsTable, path: Path) -> None:
    """Writes a table."""
    write_json(path, table.model_dump(mode="json"))
