"""Aggregates over seeds, and the sizes of differences between two methods.

Source: Agarwal et al. 2021 (arXiv 2108.13264) for the interquartile mean and the probability of improvement; the
definitions are those of their library, rliable, for one task.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half of the seeds; with fewer than four nothing is cut, and it is the plain mean.

    Args:
        values: (..., num_seeds).

    Returns:
        (...).
    """
    trimmed: Floats = np.asarray(stats.trim_mean(values, 0.25, axis=-1), np.float64)
    return trimmed


def probability_of_improvement(one: Floats, other: Floats) -> Floats:
    """Chance that a run of one method beats a run of the other: P(X > Y), ties count half.

    Args:
        one: (..., num_seeds).
        other: (..., num_other_seeds).

    Returns:
        (...) in [0, 1]; the Mann-Whitney statistic over the number of pairs.
    """
    margin = one[..., :, None] - other[..., None, :]
    chance: Floats = ((margin > 0) + 0.5 * (margin == 0)).mean(axis=(-1, -2))
    return chance


def cohens_h(one: float, other: float) -> float:
    """Size of a difference of two proportions: .2 is small, .5 medium, .8 large.

    Source: Cohen 1988, Statistical Power Analysis, chapter 6.
    """
    return 2 * math.asin(math.sqrt(one)) - 2 * math.asin(math.sqrt(other))


def hedges_g(one: Floats, other: Floats) -> float | None:
    """Difference of the means in standard deviations between seeds, corrected for few of them.

    Args:
        one: (num_seeds,).
        other: (num_seeds,).

    Returns:
        the size, or None where seeds don't differ or there is one: nothing to measure it by.

    Source: Hedges 1981, J. Educ. Stat. 6, 107-128.
    """
    freedom = len(one) + len(other) - 2
    if freedom < 2:
        return None
    spread = math.sqrt(float(((one - one.mean()) ** 2).sum() + ((other - other.mean()) ** 2).sum()) / freedom)
    if spread < 1e-9:
        return None
    return float(one.mean() - other.mean()) / spread * (1 - 3 / (4 * freedom - 1))
