"""The format of eval.json, published as JSON Schema in docs/eval.schema.json.

One policy and seed (`results/<Task>/<method>/seed<k>/eval.json`) and a whole task
(`results/<Task>/eval.json`) share it. `python -m bmd_pipeline.metrics.evaluation` prints the schema.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.metrics.document import Block, Provenance, schema_text

SCHEMA_VERSION = 2


class Estimate(Block):
    """A number with its confidence interval."""

    mean: float
    """Mean over seeds of the metric computed within each seed."""
    low: float
    """Lower end of the interval over seeds and episodes."""
    high: float
    """Upper end of the interval over seeds and episodes."""
    n: int = Field(ge=1)
    """Episodes it rests on, over all seeds."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.mean <= self.high:
            raise ValueError(f"low <= mean <= high must hold, got {self.low}, {self.mean}, {self.high}")
        return self


class PresentEstimate(Estimate):
    """How many of the task's modes are present."""

    min_share: float = Field(ge=0, lt=1)
    """Share of the successful episodes that a mode must hold."""
    total: int = Field(ge=1)
    """Modes that the task has."""


class SolvedEstimate(PresentEstimate):
    """How many of the task's modes are solved; over `total` it is mc@τ."""

    tau: float = Field(gt=0, le=1)
    """Success rate that a mode must reach."""


class ModeRow(Block):
    """One true mode."""

    mode: str
    """Name of the mode."""
    share: float = Field(ge=0, le=1)
    """Share of the successful episodes, mean over seeds."""
    success_rate: float = Field(ge=0, le=1)
    """Success rate within the mode, mean over seeds; 0 in a seed that never visits it."""
    success_low: float = Field(ge=0, le=1)
    """Lower end of the success rate's Wilson interval."""
    success_high: float = Field(ge=0, le=1)
    """Upper end of the success rate's Wilson interval."""
    episodes: float = Field(ge=0)
    """Episodes attributed to the mode over all seeds; fractional, as undecided failures are spread."""


class CodeRow(Block):
    """One mode code of one seed; codes mean nothing across seeds."""

    seed: int = Field(ge=0)
    """Training seed."""
    code: int = Field(ge=0)
    """Mode code z."""
    episodes: int = Field(ge=0)
    """Episodes that it commanded."""
    success_rate: float = Field(ge=0, le=1)
    """Success rate of those."""
    mode_shares: dict[str, float]
    """Share of each true mode among the successful ones; all zero where none succeeded."""
    behaviour: str | None
    """The true mode that most of its successes on selection seeds show, its own behaviour; null without a success."""
    obeyed: float = Field(ge=0, le=1)
    """Share of its successful episodes that show its own behaviour; 0 without either."""


class LabellingBlock(Block):
    """The mode metrics under one true labelling."""

    mode_weighted_success: Estimate
    """SRM, the mean success rate over true modes."""
    present: PresentEstimate
    """Modes that hold at least `min_share` of the successes."""
    solved: SolvedEstimate
    """Modes that are present and succeed at a rate of at least τ."""
    mode_entropy: Estimate
    """H(π) in nats, entropy of the mode distribution among successful episodes."""
    obeyed: Estimate
    """Share of the successes on command that show the code's own behaviour: mean over behaviours, where a code without
    one counts as 0. For a policy without codes, the mean of its modes' shares: 1 / K."""
    obeyed_worst: Estimate
    """The same of the least obeyed code; for a policy without codes, its smallest share."""
    per_mode: list[ModeRow]
    """One row per true mode."""
    codes: list[CodeRow]
    """One row per seed and mode code: the code → mode matrix. Empty for policies without codes."""


class SeedRow(Block):
    """The metrics of one seed, under the main labelling."""

    seed: int = Field(ge=0)
    """Training seed."""
    episodes: int = Field(ge=1)
    """Evaluation episodes."""
    success_rate: float = Field(ge=0, le=1)
    mode_weighted_success: float = Field(ge=0, le=1)
    present: int = Field(ge=0)
    solved: int = Field(ge=0)
    mode_entropy: float = Field(ge=0)
    obeyed: float = Field(ge=0, le=1)
    obeyed_worst: float = Field(ge=0, le=1)
    mutual_information: float
    episode_return: float


class PolicyBlock(LabellingBlock):
    """One policy: `pretrained`, `taught` (with codes, before fine-tuning) or a fine-tuning method, over its seeds."""

    config_hash: str
    """Hash of the settings that this policy's numbers depend on."""
    labelling: str
    """Name of the main labelling, which the mode metrics of this block use."""
    success_rate: Estimate
    """SR, the share of successful episodes."""
    mutual_information: Estimate
    """M in nats, lower bound of I(Z;S) on these episodes; exactly 0 for policies without codes."""
    episode_return: Estimate
    """Undiscounted sum of the task's reward."""
    seeds: list[SeedRow] = Field(min_length=1)
    """The same metrics seed by seed."""
    labellings: dict[str, LabellingBlock]
    """Mode metrics under the task's other labellings."""


class Evaluation(Block):
    """eval.json."""

    schema_version: Literal[2]
    """Version of this format."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the whole run's settings when the file was written."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval."""
    policies: dict[str, PolicyBlock] = Field(min_length=1)
    """By name: `pretrained`, `taught`, then the methods."""
    provenance: Provenance
    """Where the numbers come from."""


def evaluation_schema() -> str:
    """JSON Schema of eval.json as text; docs/eval.schema.json holds exactly this."""
    return schema_text(Evaluation, "eval.json")


if __name__ == "__main__":
    print(evaluation_schema(), end="")
