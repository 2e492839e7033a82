"""Tests between two policies, and the verdict: claims as hypotheses, borne out or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from bmd_pipeline.config.schema import VerdictConfig
from bmd_pipeline.metrics.bootstrap import JointSample, ModeCounts, percentile_interval
from bmd_pipeline.metrics.schemas import Hypothesis, Interval, PairVerdict, SampleSize, SeedEvidence, Unit
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE

Floats = NDArray[np.float64]

# ---- Many tests at once ----


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those <= α makes any false rejection at most α likely, however tests depend.

    Source: Holm 1979, Scand. J. Statist. 6, 65-70.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


# ---- Success of two policies on the same episodes: a score test of paired proportions ----
#
# Both policies start each episode from the same state, so what counts is episodes in which one succeeds and the other
# fails. At a difference of 0 this is McNemar's test; at any other it tests non-inferiority. It stays honest where
# Wald's test doesn't: when two policies never differ, few episodes still can't exclude a small difference.

PROPORTION_TEST = "score test of paired proportions (Tango; McNemar at 0), seeds pooled"


@dataclass(frozen=True)
class PairedCounts:
    """Episodes that two policies played from the same states.

    Attributes:
        only_one: the first policy succeeded, the second failed.
        only_other: the other way round.
        total: all episodes.
    """

    only_one: int
    only_other: int
    total: int

    @property
    def difference(self) -> float:
        """Difference of the success rates."""
        return (self.only_one - self.only_other) / self.total

    @property
    def variance(self) -> float:
        """Variance of one episode's difference, as observed."""
        return (self.only_one + self.only_other) / self.total - self.difference**2

    def null_variance(self, difference: float) -> float:
        """The same, estimated under the hypothesis that the true difference is this one (Tango 1998, eq. 3)."""
        a = 2 * self.total
        b = (2 * self.total - self.only_one + self.only_other) * difference - self.only_one - self.only_other
        c = -self.only_other * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # of episodes won by the other alone
        return max(2 * share + difference * (1 - difference), 0.0)


def count_pairs(one: Sequence[NDArray[np.bool_]], other: Sequence[NDArray[np.bool_]]) -> PairedCounts:
    """Counts episodes over all seeds, (num_episodes,) successes each. Seeds have equally many, so that the pooled
    difference is the mean over seeds."""
    won, lost = np.concatenate(list(one)), np.concatenate(list(other))
    return PairedCounts(int((won & ~lost).sum()), int((lost & ~won).sum()), len(won))


def paired_score(counts: PairedCounts, difference: float) -> float:
    """Standard score of the observed difference under a true one; it falls as the true one rises.

    Source: Tango 1998, Statistics in Medicine 17, 891-908.
    """
    surplus = counts.total * (counts.difference - difference)
    variance = counts.total * counts.null_variance(difference)
    if variance < 1e-12:
        return 0.0 if abs(surplus) < 1e-9 else math.copysign(math.inf, surplus)
    return surplus / math.sqrt(variance)


def paired_score_test(counts: PairedCounts, threshold: float) -> tuple[float, float]:
    """One-sided p for a difference above the threshold, and for one below."""
    score = paired_score(counts, threshold)
    return float(stats.norm.sf(score)), float(stats.norm.cdf(score))


def paired_interval(counts: PairedCounts, confidence: float) -> tuple[float, float]:
    """Differences that the test doesn't reject at this level."""
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    observed = counts.difference

    def excess(difference: float, sign: int) -> float:
        return sign * paired_score(counts, difference) - z

    def end(limit: float, sign: int) -> float:
        inside = limit * (1 - 1e-9)  # at the limit itself nothing may vary
        if abs(observed) >= abs(inside) and observed * limit > 0:
            return limit
        if excess(inside, sign) <= 0:
            return limit
        return float(optimize.brentq(excess, observed, inside, args=(sign,), xtol=1e-9))

    return end(-1.0, 1), end(1.0, -1)


# ---- Has one policy more modes than another, present or solved? A test that doesn't count a mode by luck ----
#
# Counting modes and then resampling the count is not enough: five rates just above τ look like two, again and again.
# So every mode of every seed is tested by itself, for the first policy whether it surely counts, for the second
# whether it surely doesn't. With K modes and S seeds, "the first has more" is true exactly if more than K·S of these
# 2·K·S statements are true, and a partial conjunction test tells when at least so many are.
#
# Source: Benjamini & Heller 2008, Biometrics 64, 1215-1222 (Bonferroni's form, valid under any dependence).


MODE_TEST = "partial conjunction of binomial tests by mode and seed (Benjamini and Heller)"


def more_modes_test(one: ModeCounts, other: ModeCounts, tau: float | None) -> tuple[Floats, Floats]:
    """Are more modes solved (at a success rate of at least τ), or fewer? Summed over the seeds. Without τ: present.

    Returns:
        one-sided p for "more" and for "fewer", (...) each.
    """
    above = _conjunction(_statements(one, other, tau))
    below = _conjunction(_statements(other, one, tau))
    needed = above.shape[-1] // 2  # of 2KS statements more than KS
    return above[..., needed], below[..., needed]


def more_modes_interval(
    one: ModeCounts, other: ModeCounts, tau: float | None, confidence: float
) -> tuple[float, float]:
    """Interval of the difference of the numbers of solved modes, mean over seeds; without τ, of present ones.

    Args:
        one: counts (num_seeds, num_modes).
        other: counts (num_seeds, num_modes).
        tau: success rate from which a present mode is solved; None asks for presence alone.
        confidence: level; each end errs with half of the rest.
    """
    error = (1 - confidence) / 2
    ends, num_modes = [], one.visits.shape[-1]
    for statements in (_statements(one, other, tau), _statements(other, one, tau)):
        refused = _conjunction(statements) > error
        proven = int(np.argmax(refused)) if refused.any() else len(refused)
        ends.append(num_modes * (2 * proven - len(refused)) / len(refused))
    return ends[0], 0.0 - ends[1]  # 0.0, not -0.0


def _conjunction(p: Floats) -> Floats:
    """p for "at least u of the n statements are true", u = 1..n, from each statement's own p (..., n)."""
    n = p.shape[-1]
    allowed = np.minimum(np.sort(p, axis=-1) * np.arange(n, 0, -1), 1.0)
    rising: Floats = np.maximum.accumulate(allowed, axis=-1)
    return rising


def _statements(one: ModeCounts, other: ModeCounts, tau: float | None) -> Floats:
    """p (..., 2 num_seeds num_modes) of "this mode counts for the first" and of "it doesn't for the second"."""
    p = np.stack([_counts(one, tau), _counts_not(other, tau)], axis=-1)
    return p.reshape(*p.shape[:-3], -1)


def _counts(counts: ModeCounts, tau: float | None) -> Floats:
    """p against "the share of the successes is below the least one, or the success rate below τ": both must go."""
    wins, totals = counts.successes, counts.successes.sum(axis=-1, keepdims=True)
    absent = _upper_tail(wins, totals, MIN_MODE_SHARE)
    return absent if tau is None else np.maximum(absent, _upper_tail(wins, counts.visits, tau))


def _counts_not(counts: ModeCounts, tau: float | None) -> Floats:
    """p against "both are reached": one of them must go, which is two chances."""
    wins, totals = counts.successes, counts.successes.sum(axis=-1, keepdims=True)
    present = _lower_tail(wins, totals, MIN_MODE_SHARE)
    if tau is None:
        return present
    both: Floats = np.minimum(2 * np.minimum(present, _lower_tail(wins, counts.visits, tau)), 1.0)
    return both


def _upper_tail(wins: Floats, trials: Floats, rate: float) -> Floats:
    """P(X >= wins) for X ~ Binomial(trials, rate), continued to fractional counts by the beta integral."""
    wins, trials = np.broadcast_arrays(wins, np.maximum(trials, wins))
    tail: Floats = special.betainc(np.maximum(wins, 1e-9), trials - wins + 1, rate)
    return np.where(wins > 1e-9, tail, 1.0)


def _lower_tail(wins: Floats, trials: Floats, rate: float) -> Floats:
    """P(X <= wins)."""
    wins, trials = np.broadcast_arrays(wins, np.maximum(trials, wins))
    tail: Floats = special.betainc(np.maximum(trials - wins, 1e-9), wins + 1, 1 - rate)
    return np.where(trials - wins > 1e-9, tail, 1.0)


# ---- Tests whose unit is a training seed: they speak about training again, and need enough seeds to say anything
# ----
#
# The test is the exact sign-flip permutation test on differences between two methods at the same seed. It assumes no
# distribution, which has a price that can be named beforehand: n seeds can't give a p below 2⁻ⁿ (one-sided), whatever
# the results are.


SEED_TEST = "sign-flip permutation test on seed differences"
_MAX_FLIPS = 1 << 14


def sign_flip_test(differences: Floats, threshold: float, rng: np.random.Generator) -> tuple[float, float]:
    """Is the mean difference above the threshold, or below it?

    Exact up to 14 seeds, by random flips beyond.

    Args:
        differences: (num_seeds,) one method minus the other, by seed.
        threshold: the mean that the null hypothesis allows.
        rng: random flips.

    Returns:
        one-sided p for "above" and for "below".

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    # Equal seeds must tie: 0.93 - 0.95 + 0.02 isn't 0 in floating point.
    shifted = np.round(differences - threshold, 12)
    if not shifted.any():
        return 1.0, 1.0
    if len(shifted) == 1:  # of two flips one is as extreme; SciPy wants two observations
        return (0.5, 1.0) if shifted[0] > 0 else (1.0, 0.5)
    above, below = (
        stats.permutation_test(
            (shifted,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=_MAX_FLIPS,
            alternative=alternative,
            rng=rng,
        ).pvalue
        for alternative in ("greater", "less")
    )
    return float(above), float(below)


def smallest_p(num_seeds: int) -> float:
    """The least one-sided p that so many seeds can give, namely if all of them agree."""
    return 0.5**num_seeds


def seeds_to_reach(alpha: float, family: int) -> int:
    """Seeds from which the first step of Holm's correction over `family` one-sided tests can be passed at all."""
    return math.ceil(math.log2(family / alpha) - 1e-9)


# ---- Tests of one score between two policies on the same episodes, seeds being strata ----
#
# They speak about the very policies that were trained. Each score has the test that fits it: swapping episodes
# between the policies, the usual permutation test, asks whether the policies differ in anything at all and would call
# two equally even policies with different favourites different in entropy, so it is not used here.


BOOTSTRAP = "paired bootstrap of episodes, seeds as strata"
ENTROPY_BOOTSTRAP = "paired basic bootstrap of episodes at equal numbers of successes, seeds as strata"


@dataclass(frozen=True)
class PairedResult:
    """What the episodes say about one score of two policies.

    Attributes:
        test: name of the test.
        low: lower end of the difference's interval.
        high: upper end.
        p_above: one-sided p for a difference above the threshold.
        p_below: one-sided p for one below.
    """

    test: str
    low: float
    high: float
    p_above: float
    p_below: float


def compare_episodes(
    sample: JointSample, one: str, other: str, score: str, *, threshold: float, confidence: float
) -> PairedResult:
    """Tests whether the difference of a score, mean over seeds, is above or below a threshold.

    Args:
        sample: the evaluations.
        one: the first policy.
        other: the second one.
        score: one of `scores.COMPARED`.
        threshold: the difference under the null hypothesis; 0 for present and solved.
        confidence: level of the interval.
    """
    if score == "success_rate":
        counts = count_pairs(sample.successes(one), sample.successes(other))
        interval = paired_interval(counts, confidence)
        p = paired_score_test(counts, threshold)
        return PairedResult(PROPORTION_TEST, *interval, *p)
    if score in ("present", "solved"):
        first, second = sample.counts(one), sample.counts(other)
        tau = sample.tau if score == "solved" else None
        interval = more_modes_interval(first, second, tau, confidence)
        above, below = more_modes_test(first, second, tau)
        return PairedResult(MODE_TEST, *interval, float(above), float(below))
    found = sample.contrast(one, other, score)
    low, high = percentile_interval(found.within, float(found.differences.mean()), confidence)
    name = ENTROPY_BOOTSTRAP if score == "mode_entropy" else BOOTSTRAP
    return PairedResult(name, low, high, _tail(found.within <= threshold), _tail(found.within >= threshold))


def two_sided(p_above: float, p_below: float) -> float:
    """Two-sided p from both one-sided ones."""
    return min(1.0, 2 * min(p_above, p_below))


def _tail(wrong: NDArray[np.bool_]) -> float:
    """Share of resamples on the wrong side; the sample itself counts as one, so that p is never 0."""
    return (1 + int(wrong.sum())) / (1 + len(wrong))


# ---- How much data would decide an undecided hypothesis, if the truth is what was seen ----
#
# All numbers are for one test at level α, corrected beforehand by the caller, to succeed with probability `power`.
# They are plans and not promises: a difference measured on few seeds is itself uncertain.

_MOST = 1 << 12
"""Multiples of the present episodes beyond which no number is named."""
_DRAWS = 200


@dataclass(frozen=True)
class Target:
    """What a test shall achieve.

    Attributes:
        alpha: one-sided level, after correction.
        power: probability of passing it.
    """

    alpha: float
    power: float

    @property
    def z(self) -> float:
        """Standard errors that the difference must be away from the threshold."""
        return float(stats.norm.isf(self.alpha) + stats.norm.ppf(self.power))


def units_for_mean(distance: float, spread: float, target: Target) -> int | None:
    """Independent units of this spread (standard deviation) that a mean's distance from the threshold needs.

    Returns:
        the number, or None at no distance: no sample decides that.
    """
    if abs(distance) < 1e-12:
        return None
    return max(1, math.ceil((target.z * spread / distance) ** 2))


def episodes_for_success(counts: PairedCounts, threshold: float, target: Target) -> int | None:
    """Paired episodes that the score test needs, over all seeds.

    Source: Lachin 1992, Statistics in Medicine 11, 1239-1251, with the score test's variance under the null.
    """
    distance = counts.difference - threshold
    if abs(distance) < 1e-12:
        return None
    null, seen = math.sqrt(counts.null_variance(threshold)), math.sqrt(max(counts.variance, 0.0))
    spread = float(stats.norm.isf(target.alpha)) * null + float(stats.norm.ppf(target.power)) * seen
    return max(1, math.ceil((spread / distance) ** 2))


def episodes_for_modes(
    one: ModeCounts, other: ModeCounts, tau: float, sign: int, target: Target, rng: np.random.Generator
) -> float | None:
    """How many times the present episodes the mode test needs, found by simulating it at the observed rates.

    Args:
        one: counts (num_seeds, num_modes).
        other: counts (num_seeds, num_modes).
        tau: success rate from which a present mode is solved.
        sign: 1 to show more modes, -1 to show fewer.
        target: level and power.
        rng: draws of the simulation.

    Returns:
        the factor, or None if even thousands of times as many would not do.
    """

    def enough(factor: float) -> bool:
        p = more_modes_test(_draw(one, factor, rng), _draw(other, factor, rng), tau)[0 if sign > 0 else 1]
        return float((p <= target.alpha).mean()) >= target.power

    high = 1.0
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = high / 2
    for _ in range(4):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _draw(counts: ModeCounts, factor: float, rng: np.random.Generator) -> ModeCounts:
    """Evaluations of another size: visits in proportion, successes drawn at the observed rates."""
    visits = np.rint(counts.visits * factor)
    rates = np.divide(counts.successes, counts.visits, out=np.zeros_like(visits), where=counts.visits > 0)
    shape = (_DRAWS, *visits.shape)
    successes = rng.binomial(visits.astype(np.int64), np.minimum(rates, 1.0), size=shape).astype(np.float64)
    return ModeCounts(successes, np.broadcast_to(visits, shape))


# ---- The verdict in plain words ----


def state_claim(hypothesis: str, one: str, other: str, threshold: float, tau: float) -> str:
    """What is claimed, before any number is seen."""
    if hypothesis == "H1":
        return f"{one} succeeds as often as {other}, or at most {-100 * threshold:g} points less often"
    if hypothesis == "H2":
        return f"{one} solves more modes than {other}, each at a success rate of at least {tau:g}"
    return f"the successes of {one} are spread over the modes more evenly than those of {other}"


def describe_hypothesis(found: Hypothesis, one: str, other: str, *, total_modes: int, tau: float) -> str:
    """What was found, in one to three sentences.

    Args:
        found: the hypothesis, decided; its own text is not read.
        one: the first policy.
        other: the second one.
        total_modes: modes of the task.
        tau: success rate from which a present mode is solved.
    """
    return " ".join(filter(None, (_describe_numbers(found, one, other, total_modes, tau), _advise(found, total_modes))))


def describe_scope(unit: Unit, num_seeds: int, *, needed: int, family: int, alpha: float) -> str:
    """What the verdicts of a file are about.

    Args:
        unit: what the tests count.
        num_seeds: training seeds there are.
        needed: seeds from which a test over seeds would be used.
        family: hypotheses that are corrected for together.
        alpha: level.
    """
    base = "All seeds fine-tune one base policy."
    if unit == "seeds":
        return f"About training again with new seeds ({num_seeds} were seen). {base}"
    seeds = "1 seed is" if num_seeds == 1 else f"{num_seeds} seeds are"
    return (
        f"About these trained policies alone: {seeds} too few to speak about training again. Whatever they show, a "
        f"test over them can't give a p below {smallest_p(num_seeds):.3g}, and {family} hypotheses at "
        f"level {alpha:g} need {alpha / family:.2g}: that takes at least {needed} seeds. {base}"
    )


def _describe_numbers(found: Hypothesis, one: str, other: str, total: int, tau: float) -> str:
    gap = found.difference
    if found.hypothesis == "H1":
        numbers = f"{one} succeeds in {100 * found.one:.1f} % of the episodes, {other} in {100 * found.other:.1f} %"
        gain = f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
    elif found.hypothesis == "H2":
        solved = f"{found.one:.1f} of {total} modes at a success rate of at least {tau:g}"
        numbers = f"{one} solves {solved}, {other} {found.other:.1f}"
        gain = f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"
    else:
        numbers = f"The entropy is {found.one:.2f} nats with {one} and {found.other:.2f} with {other}"
        # Not the difference of the two numbers before it: few successes look less even than they are.
        gain = f"at equal numbers of successes {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    return f"{numbers}: {gain}, {_describe_p(found)}."


def _describe_p(found: Hypothesis) -> str:
    p = found.p_below_holm if found.verdict == "refuted" else found.p_above_holm
    against = " against the claim" if found.verdict == "refuted" else ""
    return f"p {'< 0.0001' if p < 1e-4 else f'= {p:.2g}'} corrected{against}"


def _advise(found: Hypothesis, total: int) -> str:
    """What would decide it."""
    size = found.sample_size
    if size is None:
        return ""
    if found.metric == "solved" and found.one == found.other:
        if found.one == total:
            return f"Both solve all {total} modes: there is nothing to gain here."
        if found.one == 0:
            return "Neither solves any mode: this can't be decided at such success rates."
    if size.needed is None:
        if abs(found.difference.value - found.threshold) < 1e-12:
            return "The difference is at the threshold itself: no sample would decide it."
        return "Even thousands of times as many episodes would not decide it at these rates."
    unit = "seeds" if size.unit == "seeds" else "episodes per seed"
    return (
        f"Undecided: if the truth is what was seen, about {_round_up(size.needed):,} {unit} instead of "
        f"{size.present:,} would do."
    )


def _round_up(number: int) -> int:
    """To two digits: more would feign a precision that plans don't have."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit


# ---- The hypotheses of the verdict: what is claimed, whether the evidence bears it out, and what evidence would ----


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
        self.min_seeds = max(min_seeds, seeds_to_reach(config.alpha, self.family))
        num_seeds = len(sample.seeds)
        self.can_decide = num_seeds >= seeds_to_reach(config.alpha, self.family)
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
        above, below = sign_flip_test(differences, question.threshold, self.rng)
        needed: int | None = self.min_seeds
        if len(differences) > 1:
            distance = float(differences.mean()) - question.threshold
            planned = units_for_mean(distance, float(differences.std(ddof=1)), self._target)
            needed = None if planned is None else max(planned, self.min_seeds)
        return SeedEvidence(
            differences=differences.tolist(),
            p_above=above,
            p_below=below,
            smallest_p=smallest_p(len(differences)),
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
        return PairedResult(SEED_TEST, low, high, by_seed.p_above, by_seed.p_below)

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
