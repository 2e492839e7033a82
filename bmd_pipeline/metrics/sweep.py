"""The format of lambda/sweep.json, published as JSON Schema in docs/sweep.schema.json.

`python -m bmd_pipeline.metrics.sweep` prints the schema; docs/evidence.md says how to read the numbers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.metrics.comparison import Score
from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class Indicator(Block):
    """One sign of instability."""

    mean: float
    """Mean over seeds."""
    seeds: list[float] = Field(min_length=1)
    """By seed."""


class Point(Block):
    """One constant λ, or one controller that chooses it."""

    name: str
    """Name of its folder below lambda/."""
    controller: str
    """constant, or who chooses λ."""
    weight: float | None
    """λ; null where a controller chooses it."""
    metrics: dict[str, Score]
    """Scores as in compare.json, by name."""
    stability: dict[str, Indicator]
    """Signs of instability in training, by name; docs/evidence.md explains each."""
    holds: bool
    """Whether success and solved modes are both within their tolerance of the best constant λ."""


class Plateau(Block):
    """Neighbouring constant weights that all hold."""

    names: list[str] = Field(min_length=1)
    """Their points."""
    low: float
    """Lowest λ."""
    high: float
    """Highest λ."""
    decades: float = Field(ge=0)
    """log10 of the highest over the lowest λ above 0."""
    open_below: bool
    """Whether it begins at the lowest λ that was tried above 0 or at 0, and so may go on below."""
    open_above: bool
    """Whether it ends at the highest λ that was tried, and so may go on above."""


class Sweep(Block):
    """lambda/sweep.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that the sweep itself reads."""
    method: str
    """The method that was fine-tuned at each point."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    labelling: str
    """The mode labelling that the mode metrics use."""
    total_modes: int = Field(ge=1)
    """Modes of the task."""
    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    seeds: list[int] = Field(min_length=1)
    """Training seeds, the same at every point."""
    episodes_per_seed: int = Field(ge=1)
    """Evaluation episodes of each point and seed."""
    points: list[Point] = Field(min_length=2)
    """Constant weights, rising, then controllers."""
    success_floor: float
    """Success rate that a point must reach to hold."""
    solved_floor: float
    """Solved modes that a point must reach to hold, mean over seeds."""
    plateau: Plateau | None
    """The widest range of constant λ in which both hold; null if there is none."""
    text: str
    """The finding in words."""
    provenance: Provenance
    """Where the numbers come from."""


def sweep_schema() -> str:
    """JSON Schema of sweep.json as text; docs/sweep.schema.json holds exactly this."""
    return schema_text(Sweep, "sweep.json")


if __name__ == "__main__":
    print(sweep_schema(), end="")
