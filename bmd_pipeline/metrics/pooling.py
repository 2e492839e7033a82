"""Scores over base policies: the unit is a whole run, from demonstrations on.

Fine-tuning seeds of one base policy share its demonstrations, its gaps and its modes, so that intervals over them say
nothing about the next one. Base policies are independent, few, and each counts once: Student's interval, and the exact
sign-flip test for differences.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bmd_pipeline.metrics.comparison import Interval
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.evaluation import PolicyBlock
from bmd_pipeline.metrics.pool import PooledDifference, PooledPair, PooledScore
from bmd_pipeline.metrics.rarefaction import rarefy_entropies
from bmd_pipeline.metrics.scores import COMPARED, SCORES
from bmd_pipeline.metrics.seed_tests import sign_flip_test

Floats = NDArray[np.float64]


def student_interval(values: Floats, confidence: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Student's interval of a mean, cut at what the mean can be.

    Args:
        values: (n,) with n >= 2.
        confidence: level.
        bounds: smallest and largest mean there can be.

    Returns:
        Lower and upper end.
    """
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    return max(bounds[0], mean - half), min(bounds[1], mean + half)


def pool_scores(blocks: Sequence[PolicyBlock], confidence: float) -> dict[str, PooledScore]:
    """The scores of one policy, from its block on each base policy."""
    bounds = _bounds(len(blocks[0].per_mode))
    pooled = {}
    for name in SCORES:
        values = _values(blocks, name)
        pooled[name] = PooledScore(mean=_interval(values, confidence, bounds[name]), bases=values.tolist())
    return pooled


def pool_pair(
    blocks: Mapping[str, Sequence[PolicyBlock]],
    episodes: Mapping[str, Sequence[Sequence[Episodes]]],
    one: str,
    other: str,
    confidence: float,
    rng: np.random.Generator,
) -> PooledPair:
    """One policy minus another, by base policy; mode entropies at equal numbers of successes.

    Args:
        blocks: by policy, its block on each base policy.
        episodes: by policy, its episodes on each base policy, one part per seed.
        one: the first policy.
        other: the one that is subtracted.
        confidence: level of the intervals.
        rng: random flips, where there are more base policies than can be enumerated.
    """
    bounds = _bounds(len(blocks[one][0].per_mode))
    labelling = blocks[one][0].labelling
    metrics = {}
    for name in COMPARED:
        if name == "mode_entropy":
            values = _entropy_differences(episodes[one], episodes[other], labelling, rng)
        else:
            values = _values(blocks[one], name) - _values(blocks[other], name)
        low, high = bounds[name]
        above, below = sign_flip_test(values, 0.0, rng)
        metrics[name] = PooledDifference(
            mean=_interval(values, confidence, (low - high, high - low)),
            bases=values.tolist(),
            p_above=above,
            p_below=below,
        )
    return PooledPair(one=one, other=other, metrics=metrics)


def _entropy_differences(
    one: Sequence[Sequence[Episodes]], other: Sequence[Sequence[Episodes]], labelling: str, rng: np.random.Generator
) -> Floats:
    """Difference on each base policy, mean over its seeds."""
    rows = [rarefy_entropies(mine, theirs, labelling, 1, rng) for mine, theirs in zip(one, other, strict=True)]
    return np.array([(row.one - row.other).mean() for row in rows])


def _values(blocks: Sequence[PolicyBlock], name: str) -> Floats:
    return np.array([getattr(block, name).mean for block in blocks], dtype=np.float64)


def _interval(values: Floats, confidence: float, bounds: tuple[float, float]) -> Interval:
    low, high = student_interval(values, confidence, bounds)
    mean = float(values.mean())
    return Interval(value=mean, low=min(low, mean), high=max(high, mean))  # rounding must not disorder them


def _bounds(num_modes: int) -> dict[str, tuple[float, float]]:
    """What each score can be."""
    shares = dict.fromkeys(("success_rate", "mode_weighted_success", "obeyed", "obeyed_worst"), (0.0, 1.0))
    return {
        **shares,
        **dict.fromkeys(("present", "solved"), (0.0, float(num_modes))),
        "mode_entropy": (0.0, math.log(num_modes)),
        "episode_return": (-math.inf, math.inf),
        "mutual_information": (-math.inf, math.inf),
    }
