"""Tests whose unit is a training seed: they speak about training again, and need enough seeds to say anything.

The test is the exact sign-flip permutation test on differences between two methods at the same seed. It assumes no
distribution, which has a price that can be named beforehand: n seeds can't give a p below 2⁻ⁿ (one-sided), whatever
the results are.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

NAME = "sign-flip permutation test on seed differences"
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
