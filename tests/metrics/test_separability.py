"""Distances, silhouettes and the classifier on trajectories whose codes are known."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.mode_checks import CodeReader, measure_spread


def test_spread_matches_brute_force() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=24)
    points = rng.normal(size=(24, 2)) + codes[:, None]
    found = measure_spread(points, codes, 4)
    assert found is not None
    distance = np.array([[np.linalg.norm(one - other) for other in points] for one in points])
    silhouettes, own_distances = [], []
    for i, code in enumerate(codes):
        own = np.mean([distance[i, j] for j in range(24) if codes[j] == code and j != i])
        nearest = min(distance[i, codes == other].mean() for other in range(3) if other != code)
        silhouettes.append((nearest - own) / max(nearest, own))
        own_distances.append(own)
    by_code = [np.mean(np.array(silhouettes)[codes == code]) for code in range(3)]
    assert found.silhouette[:3] == pytest.approx(by_code)
    assert np.isnan(found.silhouette[3])
    assert found.within == pytest.approx(np.mean([np.mean(np.array(own_distances)[codes == c]) for c in range(3)]))
    between = [distance[np.ix_(codes == a, codes == b)].mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found.between == pytest.approx(np.mean(between))


def test_one_code_with_enough_episodes_has_no_spread() -> None:
    codes = np.array([0] * 10 + [1] * 3)
    assert measure_spread(np.random.default_rng(0).normal(size=(13, 2)), codes, 2) is None


def test_codes_that_differ_are_read_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    codes = np.arange(400) % 4
    for gap, readable in ((3.0, True), (0.0, False)):
        points = gap * np.stack([codes // 2, codes % 2], axis=1) + 0.3 * rng.normal(size=(400, 2))
        read = CodeReader(points[:200], codes[:200], 1).read(points[200:], codes[200:], 4, 0.95)
        assert read.chance == pytest.approx(0.25)
        assert read.table.sum() == 200
        assert (read.p < 1e-6) == readable
        assert (read.share.low > 0.9) == readable
        if not readable:
            assert read.share.low < 0.25 < read.share.high


def test_chance_is_the_commonest_code() -> None:
    """Naming one code always is right for nine in ten, and tells nothing."""
    rng = np.random.default_rng(0)
    codes = (rng.random(300) < 0.1).astype(np.int64)
    points = rng.normal(size=(300, 2))
    read = CodeReader(points[:150], codes[:150], 0).read(points[150:], codes[150:], 2, 0.95)
    assert read.chance == pytest.approx(np.mean(codes[150:] == 0))
    assert read.p > 0.05
