"""Tests between two policies, and the verdict: claims as hypotheses, supported or not."""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from bmd_pipeline.metrics.bootstrap import ModeCounts, PairedBootstrap, percentile_interval
from bmd_pipeline.metrics.episodes import Floats
from bmd_pipeline.metrics.schemas import Hypothesis, Interval, PairVerdict, Unit
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE

# ---- Many tests at once ----


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those <= α makes any false rejection at most α likely, however tests depend.

    Source: Holm 1979, Scand. J. Statist. 6, 65-70.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.empty(len(p))
    adjusted[np.argsort(p, kind="stable")] = _correct_rising(p)
    return adjusted.tolist()


def _correct_rising(p: Floats) -> Floats:
    """p-values (..., n) in rising order, the smallest times n, the next times n - 1, ..., and none below one before."""
    n = p.shape[-1]
    rising: Floats = np.maximum.accumulate(np.sort(p, axis=-1) * np.arange(n, 0, -1), axis=-1)
    return np.minimum(rising, 1.0)


# ---- Success of two policies on the same episodes: a score test of paired proportions ----
#
# Both policies start each episode from the same state, so what counts is episodes in which one succeeds and the other
# fails. At a difference of 0 this is McNemar's test; at any other it tests non-inferiority. Unlike Wald's test
# it keeps its level where the policies never differ: few episodes then don't exclude a small difference.

PROPORTION_TEST = "score test of paired proportions (Tango; McNemar at 0), seeds pooled"


@dataclass(frozen=True)
class PairedCounts:
    """Episodes that two policies played from the same states."""

    only_one: int  # in which the first policy succeeded and the second failed
    only_other: int  # the other way round
    total: int

    @property
    def difference(self) -> float:
        """Difference of the success rates."""
        return (self.only_one - self.only_other) / self.total

    def null_variance(self, difference: float) -> float:
        """Variance of one episode's difference, estimated under this true difference (Tango 1998, eq. 3)."""
        a = 2 * self.total
        b = (2 * self.total - self.only_one + self.only_other) * difference - self.only_one - self.only_other
        c = -self.only_other * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)  # of episodes won by the other alone
        return max(2 * share + difference * (1 - difference), 0.0)


def count_pairs(one: Sequence[NDArray[np.bool_]], other: Sequence[NDArray[np.bool_]]) -> PairedCounts:
    """Counts episodes over all seeds, (num_episodes,) successes each. Seeds have equally many, so that the pooled
    difference is the mean over seeds."""
    first, second = np.concatenate(one), np.concatenate(other)
    return PairedCounts(int((first & ~second).sum()), int((second & ~first).sum()), len(first))


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
    return float(special.ndtr(-score)), float(special.ndtr(score))


def tango_interval(counts: PairedCounts, confidence: float) -> tuple[float, float]:
    """Differences that the test doesn't reject at this level."""
    z = float(special.ndtri(0.5 + confidence / 2))
    observed = counts.difference

    def excess(difference: float, sign: int) -> float:
        return sign * paired_score(counts, difference) - z

    def end(limit: float, sign: int) -> float:
        inside = limit * (1 - 1e-9)  # at the limit itself nothing may vary
        if (abs(observed) >= abs(inside) and observed * limit > 0) or excess(inside, sign) <= 0:
            return limit
        return float(optimize.brentq(excess, observed, inside, args=(sign,), xtol=1e-9))

    return end(-1.0, 1), end(1.0, -1)


# ---- Has one policy more modes than another, present or solved? A test that no single lucky mode decides ----
#
# Resampling the number of modes is not enough: of five rates just above τ nearly every resample counts fewer. So every
# mode of every seed is tested by itself, for the first policy whether it surely counts, for the second whether it
# surely does not. With K modes and S seeds, "the first has more" is true exactly if more than K·S of these 2·K·S
# statements are true, and a partial conjunction test gives a p for "at least so many are true".
#
# Source: Benjamini & Heller 2008, Biometrics 64, 1215-1222 (Bonferroni's form, valid under any dependence).

MODE_TEST = "partial conjunction of binomial tests by mode and seed (Benjamini and Heller)"


def more_modes_test(one: ModeCounts, other: ModeCounts, tau: float | None) -> tuple[Floats, Floats]:
    """One-sided p, (...) each, for more modes solved (at a success rate of at least τ) and for fewer, over the seeds.

    Without τ it asks for modes that are present.
    """
    above, below = _p_at_least(one, other, tau), _p_at_least(other, one, tau)
    needed = above.shape[-1] // 2  # of 2KS statements more than KS
    return above[..., needed], below[..., needed]


def more_modes_interval(
    one: ModeCounts, other: ModeCounts, tau: float | None, confidence: float
) -> tuple[float, float]:
    """Interval of the difference of the numbers of solved modes, mean over seeds; without τ, of present ones.

    Counts are (num_seeds, num_modes). Each end errs with half of what is left of the confidence.
    """
    error = (1 - confidence) / 2
    ends, num_modes = [], one.visits.shape[-1]
    for first, second in ((one, other), (other, one)):
        refused = _p_at_least(first, second, tau) > error
        proven = int(np.argmax(refused)) if refused.any() else len(refused)
        ends.append(num_modes * (2 * proven - len(refused)) / len(refused))
    return ends[0], 0.0 - ends[1]  # 0.0, not -0.0


def _p_at_least(one: ModeCounts, other: ModeCounts, tau: float | None) -> Floats:
    """p (..., n) for "at least u of the n statements are true", u = 1..n, n = 2 num_seeds num_modes.

    The statements are "this mode counts for the first" and "it doesn't for the second".
    """
    p = np.stack([_p_mode_counts(one, tau), _p_mode_counts_not(other, tau)], axis=-1)
    return _correct_rising(p.reshape(*p.shape[:-3], -1))


def _p_mode_counts(counts: ModeCounts, tau: float | None) -> Floats:
    """p-values (..., num_modes) for "the mode is present" or, with τ, "is solved".

    The larger of the p-values against a share of the successes below MIN_MODE_SHARE and against a success rate below τ.
    """
    wins, totals = counts.successes, counts.successes.sum(axis=-1, keepdims=True)
    absent = _upper_tail(wins, totals, MIN_MODE_SHARE)
    return absent if tau is None else np.maximum(absent, _upper_tail(wins, counts.visits, tau))


def _p_mode_counts_not(counts: ModeCounts, tau: float | None) -> Floats:
    """p-values (..., num_modes) for the contrary; with τ twice the smaller of the two p-values (Bonferroni)."""
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
    """P(X <= wins): of at least as many failures."""
    return _upper_tail(np.maximum(trials - wins, 0.0), trials, 1 - rate)


# ---- Tests whose unit is a training seed: about training again, for which it takes enough seeds ----
#
# The test is the exact sign-flip permutation test on differences between two methods at the same seed. It assumes no
# distribution, which has a price that can be named beforehand: n seeds can't give a p below 2⁻ⁿ (one-sided), whatever
# the results are.

SEED_TEST = "sign-flip permutation test on seed differences"
_MAX_FLIPS = 1 << 14


def sign_flip_test(differences: Floats, threshold: float, rng: np.random.Generator) -> tuple[float, float]:
    """One-sided p for a mean of the differences (num_seeds,) above the threshold, and for one below it.

    Exact up to 14 seeds, by random flips beyond.

    Source: Fisher 1935, The Design of Experiments, section 21.
    """
    from scipy import stats  # half a second, which evaluations need not wait for

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
# They are about the very policies that were trained. Each score has the test that fits it: swapping episodes
# between the policies, the usual permutation test, asks whether the policies differ in anything at all and would call
# two equally even policies with different favourites different in entropy, so it is not used here.

BOOTSTRAP = "paired bootstrap of episodes, seeds as strata"
ENTROPY_BOOTSTRAP = "paired basic bootstrap of episodes at equal numbers of successes, seeds as strata"


@dataclass(frozen=True)
class PairedResult:
    """What the episodes say about one score of two policies."""

    test: str  # name of the test
    low: float  # lower end of the difference's interval
    high: float  # upper end
    p_above: float  # one-sided, for a difference above the threshold
    p_below: float  # one-sided, for one below


def compare_episodes(
    sample: PairedBootstrap, one: str, other: str, score: str, *, threshold: float, confidence: float
) -> PairedResult:
    """Tests whether the difference of a score of `COMPARED`, mean over seeds, is above or below a threshold.

    The threshold is the difference under the null hypothesis; it must be 0 for present and solved.
    """
    if score == "success_rate":
        counts = count_pairs(*([part.success for part in sample.episodes[policy]] for policy in (one, other)))
        return PairedResult(PROPORTION_TEST, *tango_interval(counts, confidence), *paired_score_test(counts, threshold))
    if score in ("present", "solved"):
        first, second = sample.counts(one), sample.counts(other)
        tau = sample.tau if score == "solved" else None
        above, below = more_modes_test(first, second, tau)
        return PairedResult(MODE_TEST, *more_modes_interval(first, second, tau, confidence), float(above), float(below))
    found = sample.contrast(one, other, score)
    low, high = percentile_interval(found.within, float(found.differences.mean()), confidence)
    name = ENTROPY_BOOTSTRAP if score == "mode_entropy" else BOOTSTRAP
    return PairedResult(
        name,
        low,
        high,
        _compute_resampled_p(found.within <= threshold),
        _compute_resampled_p(found.within >= threshold),
    )


def two_sided(p_above: float, p_below: float) -> float:
    """Two-sided p from both one-sided ones."""
    return min(1.0, 2 * min(p_above, p_below))


def _compute_resampled_p(wrong: NDArray[np.bool_]) -> float:
    """Share of resamples on the wrong side; the sample itself counts as one, so that p is never 0."""
    return (1 + int(wrong.sum())) / (1 + len(wrong))


# ---- The hypotheses of the verdict ----


@dataclass
class HypothesisTester:
    """Tests H1, H2 and H3 on pairs of policies."""

    sample: PairedBootstrap  # the evaluations of all of them
    pairs: Sequence[tuple[str, str]]  # (-bmd method, plain counterpart)
    _: KW_ONLY
    success_margin: float  # how much lower success may be under H1
    alpha: float  # level, one-sided each way
    min_seeds: int  # seeds from which the test over seeds decides; more where it takes more to decide anything
    rng: np.random.Generator  # draws

    def __post_init__(self) -> None:
        self._claims: tuple[tuple[Literal["H1", "H2", "H3"], str, float], ...] = (
            ("H1", "success_rate", -self.success_margin),
            ("H2", "solved", 0.0),
            ("H3", "mode_entropy", 0.0),
        )
        self.family = len(self._claims) * len(self.pairs)  # hypotheses that Holm's correction counts
        self.min_seeds = max(self.min_seeds, seeds_to_reach(self.alpha, self.family))
        self.unit: Unit = "seeds" if len(self.sample.seeds) >= self.min_seeds else "episodes"  # what verdicts count

    def evaluate(self) -> list[PairVerdict]:
        """The verdict on every pair."""
        tested = [self._test(one, other, *claim) for one, other in self.pairs for claim in self._claims]
        # Both directions are corrected over all hypotheses of the file.
        above, below = (holm([fields[side] for fields in tested]) for side in ("p_above", "p_below"))
        decided = [
            Hypothesis(**fields, verdict=self._decide(p_above, p_below), p_above_holm=p_above, p_below_holm=p_below)
            for fields, p_above, p_below in zip(tested, above, below, strict=True)
        ]
        step = len(self._claims)
        return [
            PairVerdict(one=one, other=other, hypotheses=decided[i * step : (i + 1) * step])
            for i, (one, other) in enumerate(self.pairs)
        ]

    def _test(
        self, one: str, other: str, hypothesis: Literal["H1", "H2", "H3"], score: str, threshold: float
    ) -> dict[str, Any]:
        """Fields of a `Hypothesis`: the test that decides, not yet corrected."""
        contrast, confidence = self.sample.contrast(one, other, score), 1 - 2 * self.alpha
        difference = float(contrast.differences.mean())
        if self.unit == "episodes":
            found = compare_episodes(self.sample, one, other, score, threshold=threshold, confidence=confidence)
        else:
            ends = percentile_interval(contrast.resampled, difference, confidence)
            found = PairedResult(SEED_TEST, *ends, *sign_flip_test(contrast.differences, threshold, self.rng))
        return {
            "hypothesis": hypothesis,
            "metric": score,
            "threshold": threshold,
            "one": float(self.sample.scores[one][score].mean()),
            "other": float(self.sample.scores[other][score].mean()),
            # Where no episode could change the count of modes both ends are the difference, but for rounding.
            "difference": Interval(value=difference, low=min(found.low, difference), high=max(found.high, difference)),
            "unit": self.unit,
            "test": found.test,
            "p_above": found.p_above,
            "p_below": found.p_below,
        }

    def _decide(self, above: float, below: float) -> Literal["supported", "refuted", "undecided"]:
        """The verdict by one-sided p that are corrected."""
        return "supported" if above <= self.alpha else "refuted" if below <= self.alpha else "undecided"
