"""The numbers of modes/validation.json."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.bootstrap import wilson_interval
from bmd_pipeline.metrics.mode_checks import Trajectories, Validator
from bmd_pipeline.metrics.schemas import Interval

STARTS = 200


def describe_success(one: np.ndarray, other: np.ndarray) -> Interval:
    validator = Validator(("left", "right"), 0.95, 0.05, np.random.default_rng(0))
    zeros = np.zeros(len(one), np.int64)
    points = np.random.default_rng(1).normal(size=(len(one), 2, 1))
    parts = [Trajectories(points, zeros, success, zeros) for success in (one, other)]
    # Too few successes from both episodes skip the test of modes, which costs seconds and isn't looked at here.
    return validator.describe_base(*parts).success_rate


def test_pairs_that_always_agree_count_once() -> None:
    won = np.arange(STARTS) < 15
    found = describe_success(won, won)
    assert found.value == 15 / STARTS
    assert (found.low, found.high) == pytest.approx(wilson_interval(found.value, STARTS, 0.95), abs=0.002)


def test_pairs_that_are_independent_count_twice() -> None:
    won, other = np.arange(STARTS) % 10 == 0, np.arange(STARTS) // 10 % 10 == 0  # 2 of 200 both times, as chance has it
    found = describe_success(won, other)
    assert (found.low, found.high) == pytest.approx(wilson_interval(0.1, 2 * STARTS, 0.95), abs=0.002)


def test_intervals_hold_the_truth_where_starts_decide() -> None:
    rng = np.random.default_rng(0)
    held, naive = [], []
    for _ in range(400):
        easy = rng.random(STARTS) < 0.07  # so few that nothing is tested; they succeed, others don't
        found = describe_success(easy, easy)
        held.append(found.low <= 0.07 <= found.high)
        low, high = wilson_interval(found.value, 2 * STARTS, 0.95)
        naive.append(low <= 0.07 <= high)
    assert np.mean(held) >= 0.93
    assert np.mean(naive) < 0.88
