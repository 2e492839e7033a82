"""Confidence intervals: Wilson's for proportions, a two-level bootstrap for everything else.

Episodes of one seed share a policy, so they are not independent: both intervals see seeds as clusters.
Few seeds say little about the spread between seeds, and no interval can mend that; read them with `seeds[]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

NUM_RESAMPLES = 2000
_DRAWS_AT_ONCE = 1 << 22


def wilson_interval(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion; it stays informative at 0 and 1.

    Args:
        rate: observed proportion.
        n: number of trials; may be fractional (weighted counts); without trials the interval is [0, 1].
        confidence: level, for example 0.95.

    Returns:
        Lower and upper end.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (n * rate + z**2 / 2) / (n + z**2)
    half = z * (n * rate * (1 - rate) + z**2 / 4) ** 0.5 / (n + z**2)
    # The ends are exactly 0 and 1 for rates 0 and 1; rounding must not push them past the rate.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def proportion_interval(rates: Floats, totals: Floats, confidence: float) -> tuple[float, float]:
    """Wilson's interval of the mean proportion over seeds, wider where seeds differ more than by chance.

    Seeds stand for any clusters: trials of one may resemble each other.

    Seeds count equally however many trials they have, so that one with few of them leaves the mean uncertain: k seeds
    are worth k² / Σ(1 / n_i) trials, which are all of them if each has as many. This number is divided by the design
    effect, the ratio of the variance seen between seeds to the binomial one, never below 1. A few seeds tell their
    variance badly, so that the normal quantile gives way to Student's. Its degrees of freedom are those of the seeds,
    and more where the binomial variance, which is known, is the larger part (Satterthwaite). One seed: plain Wilson.

    Args:
        rates: (num_seeds,) proportion of each seed; what a seed without trials is said to have counts in the mean and
            in the variance between seeds.
        totals: (num_seeds,) trials of each seed, may be fractional; seeds without any add no trials.
        confidence: level.

    Returns:
        Lower and upper end around rates.mean().

    Source: Korn and Graubard 1998, Survey Methodology 24, 193-201 (effective sample size and its degrees of freedom);
    Franco et al. 2019, J. Survey Stat. Methodol. 7, 334-364 (Wilson with it).
    """
    rate, n = float(rates.mean()), _count_trials(totals)
    binomial = rate * (1 - rate) / n if n > 0 else 0.0
    between = float(rates.var(ddof=1)) / len(rates) if len(rates) > 1 else 0.0
    if binomial > 0 and between > 0:
        variance = max(between, binomial)
        freedom = (len(rates) - 1) * (variance / between) ** 2
        level = 0.5 + confidence / 2
        n *= binomial / variance * (NormalDist().inv_cdf(level) / float(stats.t.ppf(level, freedom))) ** 2
    return wilson_interval(rate, n, confidence)


def _count_trials(totals: Floats) -> float:
    """Binomial trials that an unweighted mean over seeds is worth."""
    tried = totals[totals > 0]
    if len(tried) == 0:
        return 0.0
    # No proportion of mean p varies more than p(1 - p), as one trial does; a fraction of a trial doesn't either.
    worth = len(tried) ** 2 / float((1.0 / np.maximum(tried, 1.0)).sum())
    return min(worth, float(tried.sum()))


def bootstrap_sums(
    features: Sequence[Floats],
    rng: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
    *,
    draw_seeds: bool = True,
) -> Floats:
    """Resamples seeds, then episodes within each drawn seed, and sums the episodes' features.

    Metrics are functions of such sums (counts, totals), so this is all that a bootstrap needs. With one
    seed it is the ordinary bootstrap over episodes.

    Args:
        features: per seed (num_episodes, num_features).
        rng: source of the draws.
        num_resamples: bootstrap resamples.
        draw_seeds: False keeps every seed in its own slot: seeds are then strata, and what varies is episodes
            alone, as befits a statement about the very policies that were evaluated.

    Returns:
        (num_resamples, num_seeds, num_features); the second axis is the slot that a drawn seed fills.

    Source: Davison & Hinkley 1997, Bootstrap Methods, section 3.8 (hierarchical data).
    """
    num_seeds = len(features)
    slots = np.tile(np.arange(num_seeds), num_resamples)
    picks = rng.integers(num_seeds, size=len(slots)) if draw_seeds else slots
    sums = np.empty((len(picks), features[0].shape[1]))
    for k, episodes in enumerate(features):
        rows = np.flatnonzero(picks == k)
        step = max(1, _DRAWS_AT_ONCE // len(episodes))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            sums[block] = _draw_counts(len(block), len(episodes), rng) @ episodes
    return sums.reshape(num_resamples, num_seeds, -1)


def _draw_counts(num_resamples: int, n: int, rng: np.random.Generator) -> Floats:
    """How often each of n episodes enters each resample, (num_resamples, n)."""
    draws = rng.integers(n, size=(num_resamples, n)) + n * np.arange(num_resamples)[:, None]
    return np.bincount(draws.ravel(), minlength=num_resamples * n).reshape(num_resamples, n).astype(np.float64)


def percentile_interval(samples: Floats, estimate: float, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples (num_resamples,), stretched to contain the estimate.

    The stretch matters for biased metrics at the edge of their range: resampling can only lower the
    entropy of a perfectly even policy.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, (tail, 1 - tail))
    return min(float(low), estimate), max(float(high), estimate)
