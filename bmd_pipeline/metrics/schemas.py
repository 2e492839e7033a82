"""The formats of all result documents, published as JSON Schema in docs/, and how they are read."""

import json
import sys
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, ValidationError, model_validator

from bmd_pipeline.config.documented import Documented
from bmd_pipeline.config.hashing import hash_values
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import advise_again, hash_file, read_json, write_json

SCHEMA_VERSION = 3

# ---- What the published result documents share: frozen blocks, their head and how it was made ----


class Block(Documented):
    """A frozen part of a document; unknown fields and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputFile(Block):
    """A file that was read."""

    path: str
    """Where it was."""
    sha256: str
    """Hash of its content when the stage began."""
    changed: bool = False
    """Whether its content was another by the end."""


class Provenance(Block):
    """Where the numbers come from; fields as in run.json."""

    command: str
    """Command line that wrote the file."""
    git_commit: str | None
    """Commit of the code, "-dirty" if edited; null for an installed package."""
    packages: dict[str, str]
    """Versions of the packages that matter."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system and processor."""
    device: str
    """Device that computed it."""
    threads: int = Field(ge=1)
    """Cores that torch used."""
    wall_s: float = Field(ge=0)
    """Wall time in seconds."""
    cpu_seconds: float = Field(ge=0)
    """CPU time of the process and its workers in seconds."""
    config: dict[str, Any]
    """The settings that the stage itself read."""
    inputs: dict[str, InputFile]
    """What it read, by name. A `run.json` there holds the hashes of everything beside it."""


class Document(Block):
    """What every document says of itself."""

    schema_version: Literal[3]
    """Version of this format."""
    stage: str | None = None
    """Stage that wrote it; null in documents of older releases."""
    task: str
    """Name of the task."""
    config_hash: str
    """Hash of the settings that its stage itself reads; in eval.json, of the whole run's when the file was written."""
    confidence: float = Field(gt=0, lt=1)
    """Level of every interval, where nothing else is said."""
    provenance: Provenance
    """Where the numbers come from."""
    sha256: str | None = None
    """Hash of everything else in the document: of its JSON with sorted keys, without spaces, characters beyond ASCII as
    \\u escapes. Null before it is written."""


class Evidence(Document):
    """What documents share that test something; docs/evidence.md says how to read them."""

    alpha: float = Field(gt=0, lt=0.5)
    """Level of every test, 1 - confidence."""
    labelling: str
    """The mode labelling that the mode metrics use."""
    modes: list[str] = Field(min_length=1)
    """All modes of the task."""


class PolicyEvidence(Evidence):
    """What documents share that set evaluated policies side by side."""

    tau: float = Field(gt=0, le=1)
    """Success rate from which a present mode is solved."""
    seeds: list[int] = Field(min_length=1)
    """Training seeds, the same for every policy."""
    episodes_per_seed: int = Field(ge=1)
    """Evaluation episodes of each policy and seed."""


class PairOfPolicies(Block):
    """Two policies on the same seeds and the same initial states."""

    one: str
    """The first policy; in pairs with and without codes, the one with them."""
    other: str
    """The second policy, which is subtracted."""


class OneSided(Block):
    """p-values of a one-sided test, each way."""

    p_above: float = Field(ge=0, le=1)
    """For a difference above the threshold, which is 0 if there is no other."""
    p_below: float = Field(ge=0, le=1)
    """For a difference below it."""


class CodeOutcome(Block):
    """What came of the episodes that one mode code commanded."""

    code: int = Field(ge=0)
    """Mode code z."""
    episodes: int = Field(ge=0)
    """Episodes that it commanded."""
    success_rate: float = Field(ge=0, le=1)
    """Success rate of those."""
    mode_shares: dict[str, float]
    """Share of each true mode among the successful ones; all zero where none succeeded."""


# ---- eval.json: of one policy and seed (`results/<Task>/<method>/seed<k>/`), and of a whole task ----


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


class CodeRow(CodeOutcome):
    """One mode code of one seed; codes mean nothing across seeds."""

    seed: int = Field(ge=0)
    """Training seed."""
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
    dropped: int = Field(0, ge=0)
    """Episodes that showed a number which is not finite or can't be reckoned with: they count as failed."""
    obs_reach: list[float] = Field(default_factory=list)
    """By column, how far observations were from the demonstrations' mean at most, in their standard deviations."""


class TrialOutcome(Block):
    """What comes of a robot's trials, from a new start each, until it succeeds or gives up."""

    success: Estimate
    """Successes per trial; of independent trials their success rate."""
    succeeded: Estimate
    """Share that has succeeded before it gives up."""
    trials: Estimate
    """Expected number of trials: up to the first success, or until it gives up."""


class Answers(Block):
    """What a robot can do where a mode is blocked. What needs codes is null for policies without them."""

    retry: TrialOutcome
    """It tries again; with codes, each trial has one of them, drawn evenly."""
    told: TrialOutcome | None = None
    """It is told the code of highest success whose own behaviour is another mode; all trials fail if there is none. The
    code is chosen on one half of the episodes and measured on the other, both ways."""
    thompson: TrialOutcome | None = None
    """It chooses among its codes by Thompson sampling, from its own trials alone."""


class Blocked(Block):
    """A world in which one mode is blocked: an episode that takes it fails, all others stay as they are."""

    max_trials: int = Field(ge=1)
    """Trials after which a robot gives up."""
    favourite: Answers
    """Blocked is the mode that most of the policy's successes show, seed by seed."""
    any_mode: Answers
    """Each present mode is blocked in turn: mean over them."""


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
    blocked: Blocked | None = None
    """Outcomes where one mode of the main labelling is blocked; null for a task with a single mode, and in documents of
    older releases."""
    mode_spread: Estimate | None = None
    """Spread within a mode: standard deviation of the planar paths of its successes, in the unit of the task's track,
    mean over present modes of the main labelling; null in documents of older releases."""


class Evaluation(Document):
    """eval.json."""

    policies: dict[str, PolicyBlock] = Field(min_length=1)
    """By name: `pretrained`, `taught`, then the methods."""
    tables: dict[str, str] = {}
    """Hashes of the tables beside it, by name of the file; empty in documents of older releases."""


# ---- compare.json: scores of all policies, and tests of their differences ----

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


class TwoSided(Block):
    """A two-sided test."""

    test: str
    """Name of the test."""
    p: float = Field(ge=0, le=1)
    """Two-sided."""
    p_holm: float = Field(ge=0, le=1)
    """After Holm's correction over all comparisons and metrics of this file."""


class SeedTest(TwoSided):
    """A test whose unit is a training seed: about training again."""

    differences: list[float] = Field(min_length=2)
    """First minus second, by seed."""
    smallest_p: float = Field(gt=0, le=1)
    """The least p that so many seeds can give, whatever they show."""
    can_decide: bool
    """Whether the least p could pass the level after correction."""


class EpisodeTest(TwoSided):
    """A test whose unit is an evaluation episode, seeds being strata: about these trained policies alone."""

    low: float
    """Lower end of the difference's interval."""
    high: float
    """Upper end of the difference's interval."""


class Difference(Block):
    """One score of two policies."""

    difference: Interval
    """First minus second, mean over seeds; paired bootstrap of seeds, then of episodes."""
    probability_of_improvement: Interval
    """Chance that a run of the first scores higher than one of the second, ties counting half; bootstrap of seeds."""
    unit: Unit
    """Which of the two tests to read: seeds where there are enough (`compare.min_seeds`), else episodes."""
    by_seed: SeedTest | None
    """Null with one seed."""
    by_episode: EpisodeTest
    """Always there."""


class PolicyPair(PairOfPolicies):
    """Two policies compared."""

    kind: Literal["counterpart", "base"]
    """counterpart: a -bmd method against its plain one. base: a policy against the pre-trained one."""
    metrics: dict[str, Difference]
    """By name."""


class Comparison(PolicyEvidence):
    """compare.json."""

    policies: dict[str, PolicyScores] = Field(min_length=1)
    """By name: `pretrained`, `taught`, then the methods."""
    comparisons: list[PolicyPair]
    """Counterparts first, then every method against the base."""


# ---- verdict.json: the claim as hypotheses that were stated beforehand ----


class Hypothesis(OneSided):
    """One claim on one pair."""

    hypothesis: Literal["H1", "H2", "H3"]
    """H1: success not lower by more than the margin. H2: more modes solved. H3: higher entropy."""
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
    p_above_holm: float = Field(ge=0, le=1)
    """p_above after Holm's correction over all hypotheses of the file."""
    p_below_holm: float = Field(ge=0, le=1)
    """p_below after the same correction."""


class PairVerdict(PairOfPolicies):
    """The hypotheses on a -bmd method and its plain counterpart."""

    hypotheses: list[Hypothesis] = Field(min_length=3, max_length=3)
    """H1, H2, H3."""


class Verdict(PolicyEvidence):
    """verdict.json. Its alpha is the probability of calling any hypothesis supported (or any refuted) that isn't."""

    success_margin: float = Field(ge=0, lt=1)
    """H1's margin."""
    family: int = Field(ge=3)
    """Hypotheses that Holm's correction counts."""
    min_seeds: int = Field(ge=1)
    """Seeds from which tests over seeds decide; with fewer the verdicts are about these trained policies alone."""
    pairs: list[PairVerdict] = Field(min_length=1)
    """Each -bmd method with its counterpart."""


# ---- grid.json: scores in every combination of some settings' values ----


class CellScores(Block):
    """One method in one cell."""

    folder: str
    """Where its seeds are, below results/<Task>."""
    metrics: dict[str, Score]
    """Scores as in compare.json, by name."""


class Cell(Block):
    """One combination of values."""

    name: str
    """Name of its folder below grid/."""
    changes: dict[str, bool | int | float | str | None]
    """What it changes in the run, by dotted name of the setting."""
    methods: dict[str, CellScores]
    """By method, the same in every cell."""


class Grid(PolicyEvidence):
    """grid.json."""

    axis: str | None
    """The one setting that takes several values, if these are numbers; else null."""
    cells: list[Cell] = Field(min_length=1)
    """Every combination of values; by rising value where there is one axis of numbers."""


# ---- pool.json: scores over base policies ----


class PooledScore(Block):
    """A number over base policies."""

    mean: Interval
    """Mean over base policies, with Student's interval, cut at what it can be."""
    bases: list[float] = Field(min_length=2)
    """The number on each base policy (mean over fine-tuning seeds), in the order of the document's `bases`."""


class PooledDifference(PooledScore, OneSided):
    """One score of one policy minus that of another, base policy by base policy; p by the sign-flip test."""


class PooledPair(PairOfPolicies):
    """Two policies compared on the same base policies."""

    metrics: dict[str, PooledDifference]
    """By name of the score."""


class Pool(PolicyEvidence):
    """pool.json; `seeds` are those of fine-tuning, on each base policy."""

    bases: list[int] = Field(min_length=2)
    """Root seeds of the base policies."""
    policies: dict[str, dict[str, PooledScore]]
    """Scores by policy and name; `mutual_information` means nothing for policies without codes."""
    pairs: list[PooledPair]
    """Every policy against the pre-trained one, and every method with codes against the one without."""
    smallest_p: float = Field(gt=0, lt=1)
    """The least p that so many base policies can give, whatever the results are."""


# ---- modes/validation.json: whether the discovered modes are real ----


class PairedRollouts(Block):
    """Test of one mode against several, on pairs of episodes from the same start under independent noise."""

    pairs: int = Field(ge=1)
    """Pairs that were tested; about as many others chose the axis."""
    dip: float = Field(ge=0, le=1)
    """How far the distribution of the pairs' distances is from a single-peaked one."""
    p: float = Field(gt=0, le=1)
    """Chance of as large a dip if there were one mode."""


class BaseBehaviour(Block):
    """What the base policy does by itself."""

    episodes: int = Field(ge=1)
    """Episodes, two from each start."""
    success_rate: Interval
    """With Wilson's interval."""
    modes: Literal["several", "unknown"]
    """several: p <= alpha. unknown: else."""
    paired: PairedRollouts | None
    """The test; null with too few pairs of successes."""
    mode_shares: dict[str, float]
    """Share of each true mode among the successes; the test doesn't see it."""


class CodeCheck(CodeOutcome):
    """One mode code on the frozen policy."""

    recognised: float | None
    """Share of its held-out successes in which the classifier named it; null without any."""
    mode: str | None
    """The true mode that most of its successes are in; null without successes."""


class Separation(Block):
    """Whether codes lead to different behaviour, without labels."""

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


class Agreement(Block):
    """How well two sortings of the same episodes agree."""

    nmi: float = Field(ge=0, le=1)
    """Normalised mutual information: 1 if each follows from the other, 0 if neither says anything of the other. It
    rises by chance with the number of sorts."""
    ari: float = Field(ge=-1, le=1)
    """Adjusted Rand index: 1 for the same sorting, 0 in the mean of random ones."""


class Truth(Agreement):
    """Codes against the task's true modes, on successes. For evaluation only."""

    purity: float = Field(ge=0, le=1)
    """Share of successes in the majority mode of their code."""
    redundant: list[list[int]]
    """Codes with the same majority mode, in groups."""
    missing: list[str]
    """Modes that the base policy has (at least 1 % of its successes) and that no code has its majority in."""


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
    codes: list[CodeCheck] = Field(min_length=1)
    """The code → mode matrix, by row."""


class Validation(Evidence):
    """modes/validation.json. At level alpha the base policy is said to have several modes."""

    features: list[str] = Field(min_length=1)
    """Columns of the track that trajectories are compared in."""
    points: int = Field(ge=1)
    """Points that each trajectory is resampled to."""
    base: BaseBehaviour
    """The base policy."""
    discovered: list[SeedValidation] = Field(min_length=1)
    """By seed."""


# ---- Reading and publishing them ----

DOCUMENTS: dict[str, type[Document]] = {
    "eval": Evaluation,
    "compare": Comparison,
    "verdict": Verdict,
    "grid": Grid,
    "pool": Pool,
    "validation": Validation,
}
"""Result documents by the name of their file."""

AnyDocument = TypeVar("AnyDocument", bound=Document)


def write_document(path: Path, document: Document) -> None:
    """Writes a document whole, with its own hash; `ArtifactError` if it can't be written."""
    values = document.model_dump(mode="json", exclude={"sha256"})
    write_json(path, values | {"sha256": hash_values(values)})


def load_document(path: Path, model: type[AnyDocument], task: str | None = None) -> AnyDocument:
    """Reads a document that must be of this model, and about the task if one is named.

    Raises:
        ArtifactError: it is missing, damaged, edited, of another schema version or about another task.
    """
    what = model.__name__.lower()
    document = read_json(path, what)
    if (version := document.get("schema_version")) != SCHEMA_VERSION:
        raise ArtifactError(
            f"{what}: {path} has schema version {version}, this release reads {SCHEMA_VERSION}; "
            f"delete it and {advise_again(path)}"
        )
    try:
        found = model.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"doesn't fit the schema: {where}: {first['msg']}"
        raise ArtifactError(f"{what}: {path} {reason}; delete it and {advise_again(path)}") from None
    if task not in (None, found.task):
        raise ArtifactError(f"{path}: {what} of task {found.task}, not of {task}")
    values = {name: value for name, value in document.items() if name != "sha256"}
    if found.sha256 is None:
        raise ArtifactError(f"{path} has no sha256: it was edited or is old; delete it and {advise_again(path)}")
    if found.sha256 != hash_values(values):
        raise ArtifactError(f"{path} was edited: its sha256 is of another content; delete it and {advise_again(path)}")
    return found


def require_tables(evaluation: Evaluation, path: Path, *names: str) -> None:
    """Checks that the tables beside an eval.json, at `path`, are those that it names.

    Raises:
        ArtifactError: one is missing or another; a document may name none.
    """
    for table in map(path.with_name, names):
        expected = evaluation.tables.get(table.name)
        if expected is not None and (not table.is_file() or hash_file(table) != expected):
            raise ArtifactError(f"{table}: not the table that {path} names; delete both and {advise_again(path)}")


def describe_schema(name: str) -> str:
    """JSON Schema of one of the `DOCUMENTS` as text, as docs/ publishes it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **DOCUMENTS[name].model_json_schema(mode="serialization"),
        "title": f"{name}.json of bmd-pipeline",
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":  # python -m bmd_pipeline.metrics.schemas docs
    for document_name in DOCUMENTS:
        Path(sys.argv[1], f"{document_name}.schema.json").write_text(describe_schema(document_name), encoding="utf-8")
