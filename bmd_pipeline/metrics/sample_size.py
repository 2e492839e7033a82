"""How much data would decide an undecided hypothesis, if the truth is what was seen.

All numbers are for one test at level α, corrected beforehand by the caller, to succeed with probability `power`. They
are plans and not promises: a difference measured on few seeds is itself uncertain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from bmd_pipeline.metrics.mode_tests import ModeCounts, more_modes_test
from bmd_pipeline.metrics.proportion_tests import PairedCounts

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
