"""Tests of one score between two policies on the same episodes, seeds being strata.

They speak about the very policies that were trained. Each score has the test that fits it: swapping episodes between
the policies, the usual permutation test, asks whether the policies differ in anything at all and would call two equally
even policies with different favourites different in entropy, so it is not used here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics import mode_tests, proportion_tests
from bmd_pipeline.metrics.intervals import percentile_interval
from bmd_pipeline.metrics.joint import JointSample

Floats = NDArray[np.float64]

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
        counts = proportion_tests.count_pairs(sample.successes(one), sample.successes(other))
        interval = proportion_tests.paired_interval(counts, confidence)
        p = proportion_tests.paired_score_test(counts, threshold)
        return PairedResult(proportion_tests.NAME, *interval, *p)
    if score in ("present", "solved"):
        first, second = sample.counts(one), sample.counts(other)
        tau = sample.tau if score == "solved" else None
        interval = mode_tests.more_modes_interval(first, second, tau, confidence)
        above, below = mode_tests.more_modes_test(first, second, tau)
        return PairedResult(mode_tests.NAME, *interval, float(above), float(below))
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
