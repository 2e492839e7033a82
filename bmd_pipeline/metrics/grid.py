"""The format of grid.json, published as JSON Schema in docs/grid.schema.json.

`python -m bmd_pipeline.metrics.grid` prints the schema; docs/evidence.md says what the scores mean.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.metrics.comparison import Score
from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class Cell(Block):
    """One method with one K and one λ."""

    method: str
    """Fine-tuning method."""
    num_modes: int | None
    """Codes K; null for a method without codes."""
    controller: str | None
    """constant, or who chooses λ; null for a method without codes."""
    weight: float | None
    """λ; null where a controller chooses it or there is none."""
    folder: str
    """Where its seeds are, below results/<Task>."""
    metrics: dict[str, Score]
    """Scores as in compare.json, by name."""


class Grid(Block):
    """grid.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that the grid itself reads."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    labelling: str
    """The mode labelling that the mode metrics use."""
    total_modes: int = Field(ge=1)
    """Modes of the task."""
    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    seeds: list[int] = Field(min_length=1)
    """Training seeds, the same in every cell."""
    episodes_per_seed: int = Field(ge=1)
    """Evaluation episodes of each cell and seed."""
    cells: list[Cell] = Field(min_length=1)
    """By method, K and λ."""
    provenance: Provenance
    """Where the numbers come from."""


def grid_schema() -> str:
    """JSON Schema of grid.json as text; docs/grid.schema.json holds exactly this."""
    return schema_text(Grid, "grid.json")


if __name__ == "__main__":
    print(grid_schema(), end="")
