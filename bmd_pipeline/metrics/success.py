"""How often a policy succeeds, and in how many of the task's modes.

Every metric is a function of per-mode counts on the last axis, so that one call also evaluates thousands
of bootstrap resamples. Counts come from `count_modes`; docs/metrics.md is the glossary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_MODE_SHARE = 0.01
"""Share of the successful episodes from which a mode is present: a lone success is no behaviour."""


def count_modes(success: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Counts successes and visits of every mode.

    Args:
        success: (num_episodes,) bool.
        weights: (num_episodes, num_modes) rows that sum to one: one-hot for successes; a failed episode is
            spread over the modes that it was still compatible with.

    Returns:
        successes and visits, each (num_modes,).
    """
    return success.astype(np.float64) @ weights, weights.sum(axis=0)


def mode_success_rates(successes: Floats, visits: Floats) -> Floats:
    """SR_i, the success rate within each mode; 0 for a mode that nobody visited.

    Args:
        successes: (..., num_modes) successful episodes.
        visits: (..., num_modes) episodes.

    Returns:
        (..., num_modes) in [0, 1].
    """
    return _divide(successes, visits)


def mode_weighted_success(successes: Floats, visits: Floats) -> Floats:
    """SRM = (1/K_true) Σ_i SR_i: every true mode weighs the same, however often it is visited.

    Args:
        successes: (..., num_modes) successful episodes.
        visits: (..., num_modes) episodes.

    Returns:
        (...) in [0, 1].

    Source: arXiv 2605.11387, metrics.
    """
    mean: Floats = mode_success_rates(successes, visits).mean(axis=-1)
    return mean


def mode_shares(successes: Floats) -> Floats:
    """Distribution of the successful episodes over modes; all zero where nothing succeeded.

    Args:
        successes: (..., num_modes) successful episodes.

    Returns:
        (..., num_modes), rows sum to one or to zero.
    """
    return _divide(successes, successes.sum(axis=-1, keepdims=True))


def count_present(successes: Floats, min_share: float = MIN_MODE_SHARE) -> Floats:
    """How many modes are present: those that hold enough of the successes.

    Args:
        successes: (..., num_modes) successful episodes.
        min_share: share of the successful episodes that a mode must hold.

    Returns:
        (...) whole numbers in [0, num_modes].
    """
    count: Floats = _is_present(successes, min_share).sum(axis=-1, dtype=np.float64)
    return count


def count_solved(successes: Floats, visits: Floats, tau: float, min_share: float = MIN_MODE_SHARE) -> Floats:
    """How many modes are solved: present, and with a success rate of at least τ. Over num_modes it is mc@τ.

    Args:
        successes: (..., num_modes) successful episodes.
        visits: (..., num_modes) episodes.
        tau: success rate that a mode must reach.
        min_share: share of the successful episodes that a mode must hold.

    Returns:
        (...) whole numbers in [0, num_modes].

    Source: arXiv 2605.11387, metrics; the minimum share is ours.
    """
    solved = _is_present(successes, min_share) & (mode_success_rates(successes, visits) >= tau)
    count: Floats = solved.sum(axis=-1, dtype=np.float64)
    return count


def _is_present(successes: Floats, min_share: float) -> NDArray[np.bool_]:
    return (mode_shares(successes) >= min_share) & (successes > 0)


def _divide(part: Floats, whole: Floats) -> Floats:
    """part / whole, 0 where whole is 0; sums of fractional weights may exceed their whole by a rounding."""
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return np.minimum(ratio, 1.0)
