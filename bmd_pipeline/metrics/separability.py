"""Can codes be told apart by what they bring about? Distances, silhouettes, and an independent classifier."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import silhouette_samples

from bmd_pipeline.metrics.intervals import wilson_interval

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

TREES = 200
MIN_EPISODES = 4
"""Successful episodes that a code needs on each side of the split to take part."""


@dataclass(frozen=True)
class Spread:
    """How far apart codes are, in distances between trajectories.

    Attributes:
        silhouette: (num_codes,) mean silhouette of each code's episodes in [-1, 1], NaN for codes that don't take part:
            above 0, they are nearer to their own code than to any other.
        within: mean distance of two episodes of one code, mean over codes.
        between: mean distance of episodes of two codes, mean over pairs of codes.
    """

    silhouette: Floats
    within: float
    between: float


@dataclass(frozen=True)
class Recognition:
    """How often the code is told from the trajectory.

    Attributes:
        rate: share of episodes whose code was named.
        low: lower end of its Wilson interval.
        high: upper end.
        chance: what naming the commonest code always would reach.
        p: one-sided binomial p for a rate above chance.
        table: (num_codes, num_codes) episodes by code and by the code that was named.
    """

    rate: float
    low: float
    high: float
    chance: float
    p: float
    table: Labels


def measure_spread(points: Floats, codes: Labels, num_codes: int) -> Spread | None:
    """Distances and silhouettes of trajectories by code; None if fewer than two codes have enough episodes.

    Args:
        points: (n, dim) trajectories, resampled to equally many points and scaled.
        codes: (n,) the codes that commanded them.
        num_codes: K.

    Source: Rousseeuw 1987, J. Comput. Appl. Math. 20, 53-65 (silhouette).
    """
    kept = select_codes(codes, num_codes, MIN_EPISODES)
    if len(kept) < 2:
        return None
    chosen = np.isin(codes, kept)
    points, codes = points[chosen], codes[chosen]
    distance = cdist(points, points)
    values = silhouette_samples(distance, codes, metric="precomputed")
    silhouette = np.full(num_codes, np.nan)
    within, between = [], []
    for i, code in enumerate(kept):
        own = codes == code
        n = int(own.sum())
        silhouette[code] = values[own].mean()
        within.append(distance[np.ix_(own, own)].sum() / (n * (n - 1)))
        between += [distance[np.ix_(own, codes == other)].mean() for other in kept[i + 1 :]]
    return Spread(silhouette, float(np.mean(within)), float(np.mean(between)))


def select_codes(codes: Labels, num_codes: int, least: int) -> Labels:
    """Codes that have at least so many episodes."""
    return np.flatnonzero(np.bincount(codes, minlength=num_codes) >= least)


class CodeReader:
    """A random forest that tells the code from a trajectory.

    It shares nothing with the inference model, neither form nor data, and being made of thresholds it doesn't depend
    on the scale of the features.

    Args:
        points: (n, dim) trajectories to learn from, two codes or more among them.
        codes: (n,) their codes.
        seed: fixes the forest.

    Source: Breiman 2001, Mach. Learn. 45, 5-32.
    """

    def __init__(self, points: Floats, codes: Labels, seed: int) -> None:
        self._forest = RandomForestClassifier(TREES, class_weight="balanced", random_state=seed % 2**32)
        self._forest.fit(points, codes)

    def read(self, points: Floats, codes: Labels, num_codes: int, confidence: float) -> Recognition:
        """How often it names the code of other episodes.

        Args:
            points: (n, dim) trajectories, at least one.
            codes: (n,) their codes.
            num_codes: K.
            confidence: level of the interval.
        """
        named = self._forest.predict(points)
        table = np.zeros((num_codes, num_codes), np.int64)
        np.add.at(table, (codes, named), 1)
        total, right = len(codes), int(np.trace(table))
        chance = float(table.sum(axis=1).max()) / total
        low, high = wilson_interval(right / total, total, confidence)
        p = stats.binomtest(right, total, chance, alternative="greater").pvalue
        return Recognition(right / total, low, high, chance, float(p), table)
