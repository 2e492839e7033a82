"""The format of modes/validation.json, published as JSON Schema in docs/validation.schema.json.

`python -m bmd_pipeline.metrics.validation` prints the schema; docs/evidence.md says how to read the numbers.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.metrics.comparison import Interval
from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class TwinComparison(Block):
    """Test of one way against several, on pairs of episodes from the same start."""

    pairs: int = Field(ge=1)
    """Pairs that were tested; about as many others chose the axis."""
    gap: float = Field(ge=0, le=1)
    """Distance of the distribution of the pairs' distances from a single-peaked one."""
    p: float = Field(gt=0, le=1)
    """Chance of as large a gap if there were one way."""
    detectable_share: float | None
    """Smallest share of a second way, well apart, that would have been found with probability `power`; null: none."""


class BaseBehaviour(Block):
    """What the base policy does by itself."""

    episodes: int = Field(ge=1)
    """Episodes, half of them twins of the other half."""
    success_rate: Interval
    """With Wilson's interval."""
    ways: Literal["several", "one", "unknown"]
    """several: p <= alpha. one: else, if a second way of share `min_share` would have been found. unknown: else."""
    twins: TwinComparison | None
    """The test; null with too few pairs of successes."""
    mode_shares: dict[str, float]
    """Share of each true mode among the successes; the test doesn't see it."""


class CodeRow(Block):
    """One mode code."""

    code: int = Field(ge=0)
    """Mode code z."""
    episodes: int = Field(ge=1)
    """Episodes that it commanded."""
    success_rate: float = Field(ge=0, le=1)
    """Share that succeeded."""
    silhouette: float | None
    """Mean silhouette of its successes; null with fewer than four."""
    recognised: float | None
    """Share of its held-out successes in which the classifier named it; null without any."""
    mode: str | None
    """The true mode that most of its successes are in; null without successes."""
    mode_shares: dict[str, float]
    """Share of each true mode among its successes; all zero without any."""


class Separation(Block):
    """Whether codes differ in what they bring about, without labels."""

    silhouette: float = Field(ge=-1, le=1)
    """Mean silhouette of the trajectories, codes counting equally; above 0 they are nearer to their own code."""
    within: float = Field(ge=0)
    """Mean distance of two trajectories of one code."""
    between: float = Field(ge=0)
    """Mean distance of trajectories of two codes."""
    recognised: Interval
    """Share of held-out successes in which an independent classifier names the code, with Wilson's interval."""
    chance: float = Field(ge=0, le=1)
    """What naming the commonest code always would reach."""
    p: float = Field(ge=0, le=1)
    """One-sided binomial p for a share above chance."""
    learned_from: int = Field(ge=1)
    """Trajectories that the classifier learned from."""
    confusion: list[list[int]]
    """Held-out successes by code (rows) and named code (columns)."""


class Truth(Block):
    """Codes against the task's true modes, on successes. For evaluation only."""

    nmi: float = Field(ge=0, le=1)
    """Normalised mutual information."""
    ari: float = Field(ge=-1, le=1)
    """Adjusted Rand index."""
    purity: float = Field(ge=0, le=1)
    """Share of successes in the majority mode of their code."""
    redundant: list[list[int]]
    """Codes with the same majority mode, in groups."""
    missing: list[str]
    """Modes that the base policy has (at least 1 % of its successes) and that no code has its majority in."""


class Disturbed(Block):
    """The same codes and starts under a disturbance."""

    disturbance: str
    """Its name in the settings."""
    success_rate: Interval
    """Of all codes, with Wilson's interval."""
    recognised: Interval | None
    """Share of successes from held-out starts in which the classifier, which learned without the disturbance, names the
    code; null without successes."""
    present: int = Field(ge=0)
    """True modes with at least 1 % of the successes."""


class SeedValidation(Block):
    """The modes that one seed discovered, commanding the frozen policy."""

    seed: int = Field(ge=0)
    """Discovery seed."""
    episodes: int = Field(ge=1)
    """Episodes, codes in equal numbers."""
    success_rate: Interval
    """With Wilson's interval."""
    present: int = Field(ge=0)
    """True modes with at least 1 % of the successes."""
    separation: Separation | None
    """Null if fewer than two codes have enough successes."""
    truth: Truth | None
    """Null with fewer than twenty successes."""
    codes: list[CodeRow] = Field(min_length=1)
    """The code → mode matrix, by row."""
    disturbed: list[Disturbed]
    """Each disturbance."""


class SeedAgreement(Block):
    """Two seeds' inference models on the same successes of the base policy."""

    one: int = Field(ge=0)
    """A discovery seed."""
    other: int = Field(ge=0)
    """Another one."""
    episodes: int = Field(ge=1)
    """Successes that both sorted."""
    nmi: float = Field(ge=0, le=1)
    """Normalised mutual information of their codes."""
    ari: float = Field(ge=-1, le=1)
    """Adjusted Rand index of their codes."""


class Validation(Block):
    """modes/validation.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that the validation itself reads."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    alpha: float = Field(gt=0, lt=0.5)
    """Level at which the base policy is said to have several ways."""
    power: float = Field(gt=0, lt=1)
    """Probability that goes with `detectable_share`."""
    min_share: float = Field(gt=0, le=0.5)
    """Share of a second way that must be detectable before the base policy is said to have one."""
    labelling: str
    """The mode labelling."""
    modes: list[str] = Field(min_length=1)
    """All modes of the task."""
    features: list[str] = Field(min_length=1)
    """Columns of the track that trajectories are compared in."""
    points: int = Field(ge=1)
    """Points that each trajectory is resampled to."""
    base: BaseBehaviour
    """The base policy."""
    discovered: list[SeedValidation] = Field(min_length=1)
    """By seed."""
    agreement: list[SeedAgreement]
    """Every pair of seeds; empty with one seed or fewer than twenty successes."""
    text: list[str] = Field(min_length=1)
    """The findings in words."""
    provenance: Provenance
    """Where the numbers come from."""


def validation_schema() -> str:
    """JSON Schema of modes/validation.json as text; docs/validation.schema.json holds exactly this."""
    return schema_text(Validation, "validation.json")


if __name__ == "__main__":
    print(validation_schema(), end="")
