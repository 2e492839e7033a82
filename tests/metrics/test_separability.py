"""Distances, silhouettes and the classifier on trajectories whose codes are known."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.mode_checks import Trajectories, Validator, measure_spread
from bmd_pipeline.metrics.schemas import Separation


def separate(points: np.ndarray, codes: np.ndarray, num_codes: int) -> Separation:
    """What validation says of successes (n, dim) on command; every second round of codes is held out."""
    zeros, won = np.zeros(len(codes), np.int64), np.ones(len(codes), bool)
    played, none = Trajectories(points[:, None], codes, won, zeros), Trajectories(points[:, None], codes, ~won, zeros)
    validator = Validator(("any",), 0.95, 0.05, np.random.default_rng(0))
    found = validator.describe_seed(0, num_codes, played, {}, validator.describe_base(none, none)).separation
    assert found is not None
    return found


def test_spread_matches_brute_force() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=24)
    points = rng.normal(size=(24, 2)) + codes[:, None]
    found = measure_spread(points, codes, 4)
    assert found is not None
    silhouette, within, between = found
    distance = np.array([[np.linalg.norm(one - other) for other in points] for one in points])
    silhouettes, own_distances = [], []
    for i, code in enumerate(codes):
        own = np.mean([distance[i, j] for j in range(24) if codes[j] == code and j != i])
        nearest = min(distance[i, codes == other].mean() for other in range(3) if other != code)
        silhouettes.append((nearest - own) / max(nearest, own))
        own_distances.append(own)
    by_code = [np.mean(np.array(silhouettes)[codes == code]) for code in range(3)]
    assert silhouette[:3] == pytest.approx(by_code)
    assert np.isnan(silhouette[3])
    assert within == pytest.approx(np.mean([np.mean(np.array(own_distances)[codes == c]) for c in range(3)]))
    pairs = [distance[np.ix_(codes == a, codes == b)].mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert between == pytest.approx(np.mean(pairs))


def test_one_code_with_enough_episodes_has_no_spread() -> None:
    codes = np.array([0] * 10 + [1] * 3)
    assert measure_spread(np.random.default_rng(0).normal(size=(13, 2)), codes, 2) is None


def test_codes_that_differ_are_read_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(400) % 4
    for gap, readable in ((3.0, True), (0.0, False)):
        points = gap * np.stack([codes // 2, codes % 2], axis=1) + 0.3 * rng.normal(size=(400, 2))
        found = separate(points, codes, 4)
        assert found.chance == pytest.approx(0.25)
        assert np.sum(found.confusion) == found.learned_from == 200
        assert (found.p < 1e-6) == readable
        assert (found.recognised.low > 0.9) == readable
        if not readable:
            assert found.recognised.low < 0.25 < found.recognised.high


def test_chance_is_the_commonest_code() -> None:
    """Naming one code always is right for nine in ten, and tells nothing."""
    rng = np.random.default_rng(0)
    codes = (rng.random(300) < 0.1).astype(np.int64)
    points = rng.normal(size=(300, 2))
    found = separate(points, codes, 2)
    assert found.chance == pytest.approx(np.mean(codes[np.arange(300) // 2 % 2 == 1] == 0))
    assert found.p > 0.05
