"""The format of pool.json, published as JSON Schema in docs/pool.schema.json.

`python -m bmd_pipeline.metrics.pool` prints the schema; docs/evidence.md says how to read the numbers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.metrics.comparison import Interval
from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class PooledScore(Block):
    """One score of one policy over base policies."""

    mean: Interval
    """Mean over base policies, with Student's interval, cut at what the score can be."""
    bases: list[float] = Field(min_length=2)
    """The score on each base policy (mean over fine-tuning seeds), in the order of the document's `bases`."""


class PooledDifference(Block):
    """One score of one policy minus that of another, base policy by base policy."""

    mean: Interval
    """Mean over base policies, with Student's interval of paired differences."""
    bases: list[float] = Field(min_length=2)
    """The difference on each base policy."""
    p_above: float = Field(ge=0, le=1)
    """One-sided p of the sign-flip test for a mean above zero."""
    p_below: float = Field(ge=0, le=1)
    """One-sided p for a mean below zero."""


class PooledPair(Block):
    """Two policies compared on the same base policies."""

    one: str
    """The first policy."""
    other: str
    """The one that is subtracted."""
    metrics: dict[str, PooledDifference]
    """By name of the score."""


class Pool(Block):
    """pool.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that pooling itself reads."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    labelling: str
    """The mode labelling that the mode metrics use."""
    total_modes: int = Field(ge=1)
    """Modes of the task."""
    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    bases: list[int] = Field(min_length=2)
    """Root seeds of the base policies."""
    seeds: list[int] = Field(min_length=1)
    """Fine-tuning seeds on each of them."""
    policies: dict[str, dict[str, PooledScore]]
    """Scores by policy and name; `mutual_information` means nothing for policies without codes."""
    pairs: list[PooledPair]
    """Every policy against the pre-trained one, and every method with codes against the one without."""
    smallest_p: float = Field(gt=0, lt=1)
    """The least p that so many base policies can give, whatever the results are."""
    provenance: Provenance
    """Where the numbers come from."""


def pool_schema() -> str:
    """JSON Schema of pool.json as text; docs/pool.schema.json holds exactly this."""
    return schema_text(Pool, "pool.json")


if __name__ == "__main__":
    print(pool_schema(), end="")
