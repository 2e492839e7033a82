"""The format of verdict.json, published as JSON Schema in docs/verdict.schema.json.

`python -m bmd_pipeline.metrics.verdict` prints the schema; docs/evidence.md says how to read the numbers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.metrics.comparison import Interval, Unit
from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class SeedEvidence(Block):
    """What the seeds say, each counting once: about training again."""

    differences: list[float] = Field(min_length=1)
    """First minus second, by seed."""
    p_above: float = Field(ge=0, le=1)
    """One-sided p for a difference above the threshold, by sign flips."""
    p_below: float = Field(ge=0, le=1)
    """One-sided p for a difference below the threshold."""
    smallest_p: float = Field(gt=0, le=1)
    """The least p that so many seeds can give, whatever they show."""
    can_decide: bool
    """Whether the least p could pass the level after correction."""
    seeds_needed: int | None
    """Seeds that would decide if the truth is what was seen; null if the difference is at the threshold itself."""


class SampleSize(Block):
    """What would decide an undecided hypothesis if the truth is what was seen."""

    unit: Unit
    """Seeds, or episodes of each policy and seed."""
    present: int = Field(ge=1)
    """How many there are."""
    needed: int | None
    """How many there should be; null if no number would do."""


class Hypothesis(Block):
    """One claim on one pair."""

    hypothesis: Literal["H1", "H2", "H3"]
    """H1: success not lower by more than the margin. H2: more modes solved. H3: higher entropy."""
    claim: str
    """The claim in words."""
    metric: str
    """The score it is about."""
    threshold: float
    """The claim is that the difference is larger than this."""
    one: float
    """Score of the first policy, mean over seeds."""
    other: float
    """Score of the second policy."""
    difference: Interval
    """First minus second, with the interval at level 1 - 2 alpha, not corrected for many tests: of the test itself if
    the unit is episodes, by paired bootstrap of seeds and episodes if it is seeds."""
    verdict: Literal["supported", "refuted", "undecided"]
    """supported: p_above_holm <= alpha. refuted: p_below_holm <= alpha. Else undecided."""
    unit: Unit
    """What the test counts; episodes make it a statement about these trained policies alone."""
    test: str
    """Name of the test."""
    p_above: float = Field(ge=0, le=1)
    """One-sided p for a difference above the threshold."""
    p_above_holm: float = Field(ge=0, le=1)
    """After Holm's correction over all hypotheses of the file."""
    p_below: float = Field(ge=0, le=1)
    """One-sided p for a difference below the threshold."""
    p_below_holm: float = Field(ge=0, le=1)
    """After Holm's correction over all hypotheses of the file."""
    by_seed: SeedEvidence
    """The same question asked of the seeds."""
    sample_size: SampleSize | None
    """Null unless undecided."""
    text: str
    """The numbers in words."""


class PairVerdict(Block):
    """The hypotheses on one pair."""

    one: str
    """The -bmd method."""
    other: str
    """Its plain counterpart."""
    hypotheses: list[Hypothesis] = Field(min_length=3, max_length=3)
    """H1, H2, H3."""


class Verdict(Block):
    """verdict.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that the verdict itself reads."""
    thresholds_hash: str
    """Hash of alpha, power, tau and success_margin alone."""
    alpha: float = Field(gt=0, lt=0.5)
    """Probability of calling any hypothesis of the file supported (or any refuted) that isn't."""
    power: float = Field(gt=0, lt=1)
    """Probability with which a recommended sample size decides."""
    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    success_margin: float = Field(ge=0, lt=1)
    """H1's margin."""
    family: int = Field(ge=3)
    """Hypotheses that Holm's correction counts."""
    labelling: str
    """The mode labelling that H2 and H3 use."""
    total_modes: int = Field(ge=1)
    """Modes of the task."""
    seeds: list[int] = Field(min_length=1)
    """Training seeds, the same for every policy."""
    episodes_per_seed: int = Field(ge=1)
    """Evaluation episodes of each policy and seed."""
    scope: str
    """What the verdicts are about, in words."""
    pairs: list[PairVerdict] = Field(min_length=1)
    """Each -bmd method with its counterpart."""
    provenance: Provenance
    """Where the numbers come from."""


def verdict_schema() -> str:
    """JSON Schema of verdict.json as text; docs/verdict.schema.json holds exactly this."""
    return schema_text(Verdict, "verdict.json")


if __name__ == "__main__":
    print(verdict_schema(), end="")
