"""The classifier on trajectories whose codes are known."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.mode_checks import Trajectories, Validator
from bmd_pipeline.metrics.schemas import Separation


def separate(points: np.ndarray, codes: np.ndarray, num_codes: int) -> Separation:
    """What validation says of successes (n, dim) on command; every second round of codes is held out."""
    zeros, won = np.zeros(len(codes), np.int64), np.ones(len(codes), bool)
    played, none = Trajectories(points[:, None], codes, won, zeros), Trajectories(points[:, None], codes, ~won, zeros)
    validator = Validator(("any",), 0.95, 0.05, np.random.default_rng(0))
    found = validator.describe_seed(0, num_codes, played, validator.describe_base(none, none)).separation
    assert found is not None
    return found


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
