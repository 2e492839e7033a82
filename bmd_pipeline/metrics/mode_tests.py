"""Has one policy more modes than another, present or solved? A test that doesn't count a mode by luck.

Counting modes and then resampling the count is not enough: five rates just above τ look like two, again and again. So
every mode of every seed is tested by itself, for the first policy whether it surely counts, for the second whether it
surely doesn't. With K modes and S seeds, "the first has more" is true exactly if more than K·S of these 2·K·S
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
