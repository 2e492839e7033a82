"""Does one policy keep more modes than another? A test that doesn't count a mode by luck.

Counting modes and then resampling the count is not enough: five rates just above τ look like two, again and again. So
every mode of every seed is tested by itself, for the first policy whether it is surely kept, for the second whether it
is surely not. With K modes and S seeds, "the first keeps more" is true exactly if more than K·S of these 2·K·S
statements are true, and a partial conjunction test tells when at least so many are.

Source: Benjamini & Heller 2008, Biometrics 64, 1215-1222 (Bonferroni's form, valid under any dependence).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bmd_pipeline.metrics.success import MIN_MODE_SHARE

Floats = NDArray[np.float64]

NAME = "partial conjunction of binomial tests by mode and seed (Benjamini and Heller)"


@dataclass(frozen=True)
class ModeCounts:
    """One policy's episodes by mode.

    Attributes:
        successes: (..., num_seeds, num_modes).
        visits: (..., num_seeds, num_modes), fractional where failures were spread.
    """

    successes: Floats
    visits: Floats


def more_modes_test(one: ModeCounts, other: ModeCounts, tau: float) -> tuple[Floats, Floats]:
    """Are more modes kept at a success rate of at least τ, or fewer? Summed over the seeds.

    Returns:
        one-sided p for "more" and for "fewer", (...) each.
    """
    above = _conjunction(_statements(one, other, tau))
    below = _conjunction(_statements(other, one, tau))
    needed = above.shape[-1] // 2  # of 2KS statements more than KS
    return above[..., needed], below[..., needed]


def more_modes_interval(one: ModeCounts, other: ModeCounts, tau: float, confidence: float) -> tuple[float, float]:
    """Interval of the difference of mc@τ, mean over seeds, as a share of all modes.

    Args:
        one: counts (num_seeds, num_modes).
        other: counts (num_seeds, num_modes).
        tau: success rate from which a mode is kept.
        confidence: level; each end errs with half of the rest.
    """
    error = (1 - confidence) / 2
    ends = []
    for statements in (_statements(one, other, tau), _statements(other, one, tau)):
        refused = _conjunction(statements) > error
        proven = int(np.argmax(refused)) if refused.any() else len(refused)
        ends.append((2 * proven - len(refused)) / len(refused))
    return ends[0], 0.0 - ends[1]  # 0.0, not -0.0


def _conjunction(p: Floats) -> Floats:
    """p for "at least u of the n statements are true", u = 1..n, from each statement's own p (..., n)."""
    n = p.shape[-1]
    allowed = np.minimum(np.sort(p, axis=-1) * np.arange(n, 0, -1), 1.0)
    rising: Floats = np.maximum.accumulate(allowed, axis=-1)
    return rising


def _statements(one: ModeCounts, other: ModeCounts, tau: float) -> Floats:
    """p (..., 2 num_seeds num_modes) of "the first keeps this mode" and of "the second doesn't"."""
    p = np.stack([_kept(one, tau), _not_kept(other, tau)], axis=-1)
    return p.reshape(*p.shape[:-3], -1)


def _kept(counts: ModeCounts, tau: float) -> Floats:
    """p against "the success rate is below τ, or the share of the successes below the least one": both must go."""
    wins, totals = counts.successes, counts.successes.sum(axis=-1, keepdims=True)
    return np.maximum(_upper_tail(wins, counts.visits, tau), _upper_tail(wins, totals, MIN_MODE_SHARE))


def _not_kept(counts: ModeCounts, tau: float) -> Floats:
    """p against "both are reached": one of them must go, which is two chances."""
    wins, totals = counts.successes, counts.successes.sum(axis=-1, keepdims=True)
    least = np.minimum(_lower_tail(wins, counts.visits, tau), _lower_tail(wins, totals, MIN_MODE_SHARE))
    both: Floats = np.minimum(2 * least, 1.0)
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
