"""The format of compare.json, published as JSON Schema in docs/compare.schema.json.

`python -m bmd_pipeline.metrics.comparison` prints the schema; docs/evidence.md says how to read the numbers.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.metrics.document import Block, Provenance, schema_text
from bmd_pipeline.metrics.evaluation import ModeRow

SCHEMA_VERSION = 2

Unit = Literal["seeds", "episodes"]


class Interval(Block):
    """A number with its interval."""

    value: float
    """The number."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"low <= value <= high must hold, got {self.low}, {self.value}, {self.high}")
        return self


class Score(Block):
    """One score of one policy over its seeds."""

    mean: Interval
    """Mean over seeds."""
    iqm: Interval
    """Interquartile mean over seeds: the mean of the middle half; with fewer than four seeds the plain mean."""
    seeds: list[float] = Field(min_length=1)
    """The score of each seed, in the order of the document's `seeds`."""


class PolicyScores(Block):
    """One policy."""

    metrics: dict[str, Score]
    """By name. Intervals: percentile bootstrap of seeds, then of episodes within each drawn seed."""
    wilson: Interval
    """Success rate with Wilson's interval, the episodes of all seeds pooled as if they were independent."""
    per_mode: list[ModeRow]
    """One row per true mode."""


class SeedTest(Block):
    """A test whose unit is a training seed: about training again."""

    test: str
    """Name of the test."""
    differences: list[float] = Field(min_length=2)
    """First minus second, by seed."""
    p: float = Field(ge=0, le=1)
    """Two-sided."""
    p_holm: float = Field(ge=0, le=1)
    """After Holm's correction over all comparisons and metrics of this file."""
    smallest_p: float = Field(gt=0, le=1)
    """The least p that so many seeds can give, whatever they show."""
    can_decide: bool
    """Whether the least p could pass the level, 1 - confidence, after correction."""


class EpisodeTest(Block):
    """A test whose unit is an evaluation episode, seeds being strata: about these trained policies alone."""

    test: str
    """Name of the test."""
    low: float
    """Lower end of the difference's interval."""
    high: float
    """Upper end of the difference's interval."""
    p: float = Field(ge=0, le=1)
    """Two-sided."""
    p_holm: float = Field(ge=0, le=1)
    """After Holm's correction over all comparisons and metrics of this file."""


class Difference(Block):
    """One score of two policies."""

    difference: Interval
    """First minus second, mean over seeds; paired bootstrap of seeds, then of episodes."""
    probability_of_improvement: Interval
    """Chance that a run of the first scores higher than one of the second, ties counting half; bootstrap of seeds."""
    hedges_g: float | None
    """Difference in standard deviations between seeds; null where seeds don't differ, or there is one."""
    cohens_h: float | None
    """Size of the difference of two proportions; success_rate only."""
    unit: Unit
    """Which of the two tests to read: seeds where there are enough (`compare.min_seeds`), else episodes."""
    by_seed: SeedTest | None
    """Null with one seed."""
    by_episode: EpisodeTest
    """Always there."""


class PolicyPair(Block):
    """Two policies on the same seeds and the same initial states."""

    one: str
    """The first policy."""
    other: str
    """The second policy."""
    kind: Literal["counterpart", "base"]
    """counterpart: a -bmd method against its plain one. base: a policy against the pre-trained one."""
    metrics: dict[str, Difference]
    """By name."""


class Comparison(Block):
    """compare.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that the comparison itself reads."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    labelling: str
    """The mode labelling that the mode metrics use."""
    modes: list[str] = Field(min_length=1)
    """All modes of the task."""
    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    seeds: list[int] = Field(min_length=1)
    """Training seeds, the same for every policy."""
    episodes_per_seed: int = Field(ge=1)
    """Evaluation episodes of each policy and seed."""
    policies: dict[str, PolicyScores] = Field(min_length=1)
    """By name: `pretrained`, `taught`, then the methods."""
    comparisons: list[PolicyPair]
    """Counterparts first, then every method against the base."""
    provenance: Provenance
    """Where the numbers come from."""


def comparison_schema() -> str:
    """JSON Schema of compare.json as text; docs/compare.schema.json holds exactly this."""
    return schema_text(Comparison, "compare.json")


if __name__ == "__main__":
    print(comparison_schema(), end="")
