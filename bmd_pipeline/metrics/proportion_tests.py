"""Success of two policies on the same episodes: a score test of paired proportions.

Both policies start each episode from the same state, so what counts is episodes in which one succeeds and the other
fails. At a difference of 0 this is McNemar's test; at any other it tests non-inferiority. It stays honest where Wald's
test doesn't: when two policies never differ, few episodes still can't exclude a small difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

NAME = "score test of paired proportions (Tango; McNemar at 0), seeds pooled"


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
