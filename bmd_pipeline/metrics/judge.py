"""The hypotheses of the verdict: what is claimed, whether the evidence bears it out, and what evidence would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.config.schema import VerdictConfig
from bmd_pipeline.metrics import seed_tests
from bmd_pipeline.metrics.comparison import Interval, Unit
from bmd_pipeline.metrics.correction import holm
from bmd_pipeline.metrics.intervals import percentile_interval
from bmd_pipeline.metrics.joint import JointSample
from bmd_pipeline.metrics.paired import PairedResult, compare_episodes
from bmd_pipeline.metrics.proportion_tests import count_pairs
from bmd_pipeline.metrics.sample_size import Target, episodes_for_modes, episodes_for_success, units_for_mean
from bmd_pipeline.metrics.verdict import Hypothesis, PairVerdict, SampleSize, SeedEvidence
from bmd_pipeline.metrics.verdict_words import describe_hypothesis, state_claim

Floats = NDArray[np.float64]

_SCORES: tuple[tuple[Literal["H1", "H2", "H3"], str], ...] = (
    ("H1", "success_rate"),
    ("H2", "solved"),
    ("H3", "mode_entropy"),
)


@dataclass(frozen=True)
class _Question:
    """One hypothesis on one pair."""

    hypothesis: Literal["H1", "H2", "H3"]
    score: str
    one: str
    other: str
    threshold: float


class Judge:
    """Decides the hypotheses on pairs of policies.

    Args:
        sample: the evaluations of all of them.
        pairs: (-bmd method, plain counterpart).
        config: thresholds.
        min_seeds: seeds from which the test over seeds decides, if it can.
        rng: draws.

    Attributes:
        family: how many hypotheses there are.
        can_decide: whether the seeds are enough for their test to pass the level, whatever they show.
        unit: what the verdicts count.
    """

    def __init__(
        self,
        sample: JointSample,
        pairs: Sequence[tuple[str, str]],
        config: VerdictConfig,
        *,
        min_seeds: int,
        rng: np.random.Generator,
    ) -> None:
        self.sample = sample
        self.pairs = pairs
        self.config = config
        self.rng = rng
        self.family = len(_SCORES) * len(pairs)
        self.min_seeds = max(min_seeds, seed_tests.seeds_to_reach(config.alpha, self.family))
        num_seeds = len(sample.seeds)
        self.can_decide = num_seeds >= seed_tests.seeds_to_reach(config.alpha, self.family)
        self.unit: Unit = "seeds" if num_seeds >= self.min_seeds else "episodes"
        # Holm's first step: enough whatever the other hypotheses turn out to be.
        self._target = Target(config.alpha / self.family, config.power)

    def judge(self) -> list[PairVerdict]:
        """The verdict on every pair."""
        questions = [
            _Question(hypothesis, score, *pair, -self.config.success_margin if hypothesis == "H1" else 0.0)
            for pair in self.pairs
            for hypothesis, score in _SCORES
        ]
        by_seed = [self._ask_seeds(question) for question in questions]
        results = [self._ask(question, seeds) for question, seeds in zip(questions, by_seed, strict=True)]
        above, below = holm([found.p_above for found in results]), holm([found.p_below for found in results])
        decided = [self._decide(*row) for row in zip(questions, results, above, below, by_seed, strict=True)]
        step = len(_SCORES)
        return [
            PairVerdict(one=one, other=other, hypotheses=decided[i * step : (i + 1) * step])
            for i, (one, other) in enumerate(self.pairs)
        ]

    def _ask_seeds(self, question: _Question) -> SeedEvidence:
        differences = self._differences(question)
        above, below = seed_tests.sign_flip_test(differences, question.threshold, self.rng)
        needed: int | None = self.min_seeds
        if len(differences) > 1:
            distance = float(differences.mean()) - question.threshold
            planned = units_for_mean(distance, float(differences.std(ddof=1)), self._target)
            needed = None if planned is None else max(planned, self.min_seeds)
        return SeedEvidence(
            differences=differences.tolist(),
            p_above=above,
            p_below=below,
            smallest_p=seed_tests.smallest_p(len(differences)),
            can_decide=self.can_decide,
            seeds_needed=needed,
        )

    def _ask(self, question: _Question, by_seed: SeedEvidence) -> PairedResult:
        """The test that decides."""
        one, other, score = question.one, question.other, question.score
        confidence = 1 - 2 * self.config.alpha
        if self.unit == "episodes":
            return compare_episodes(self.sample, one, other, score, threshold=question.threshold, confidence=confidence)
        drawn = self.sample.contrast(one, other, score).resampled
        low, high = percentile_interval(drawn, float(self._differences(question).mean()), confidence)
        return PairedResult(seed_tests.NAME, low, high, by_seed.p_above, by_seed.p_below)

    def _decide(
        self, question: _Question, found: PairedResult, above: float, below: float, by_seed: SeedEvidence
    ) -> Hypothesis:
        alpha = self.config.alpha
        verdict: Literal["supported", "refuted", "undecided"] = (
            "supported" if above <= alpha else "refuted" if below <= alpha else "undecided"
        )
        difference = float(self._differences(question).mean())
        draft = Hypothesis(
            hypothesis=question.hypothesis,
            claim=state_claim(question.hypothesis, question.one, question.other, question.threshold, self.sample.tau),
            metric=question.score,
            threshold=question.threshold,
            one=float(self.sample.scores[question.one][question.score].mean()),
            other=float(self.sample.scores[question.other][question.score].mean()),
            # Where no episode could change the count of modes both ends are the difference, but for rounding.
            difference=Interval(value=difference, low=min(found.low, difference), high=max(found.high, difference)),
            verdict=verdict,
            unit=self.unit,
            test=found.test,
            p_above=found.p_above,
            p_above_holm=above,
            p_below=found.p_below,
            p_below_holm=below,
            by_seed=by_seed,
            sample_size=self._plan(question, by_seed) if verdict == "undecided" else None,
            text="",
        )
        text = describe_hypothesis(
            draft, question.one, question.other, total_modes=len(self.sample.modes), tau=self.sample.tau
        )
        return draft.model_copy(update={"text": text})

    def _plan(self, question: _Question, by_seed: SeedEvidence) -> SampleSize:
        if self.unit == "seeds":
            present, needed = len(self.sample.seeds), by_seed.seeds_needed
        else:
            present, needed = self.sample.num_episodes, self._episodes_needed(question)
        return SampleSize(unit=self.unit, present=present, needed=None if needed is None else max(needed, present + 1))

    def _episodes_needed(self, question: _Question) -> int | None:
        """Episodes of each seed; seeds stay as they are."""
        sample, one, other = self.sample, question.one, question.other
        distance = float(self._differences(question).mean()) - question.threshold
        if abs(distance) < 1e-12:
            return None
        if question.score == "success_rate":
            counts = count_pairs(sample.successes(one), sample.successes(other))
            total = episodes_for_success(counts, question.threshold, self._target)
            return None if total is None else math.ceil(total / len(sample.seeds))
        if question.score == "solved":
            sign = 1 if distance > 0 else -1
            factor = episodes_for_modes(
                sample.counts(one), sample.counts(other), sample.tau, sign, self._target, self.rng
            )
            return None if factor is None else math.ceil(factor * sample.num_episodes)
        drawn = sample.contrast(one, other, question.score).within
        spread = float(drawn.std(ddof=1)) * math.sqrt(sample.num_episodes)
        return units_for_mean(distance, spread, self._target)

    def _differences(self, question: _Question) -> Floats:
        return self.sample.contrast(question.one, question.other, question.score).differences
