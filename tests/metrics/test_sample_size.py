"""Recommended sample sizes: do they decide as often as promised?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bmd_pipeline.metrics.hypotheses import (
    ModeCounts,
    PairedCounts,
    Target,
    episodes_for_modes,
    episodes_for_success,
    more_modes_test,
    paired_score_test,
    units_for_mean,
)

TARGET = Target(alpha=0.05, power=0.8)


def test_means_need_the_textbook_number() -> None:
    # (1.645 + 0.842)² · 4 / 0.25 = 98.9
    assert units_for_mean(0.5, 2.0, TARGET) == 99
    assert units_for_mean(-0.5, 2.0, TARGET) == 99
    assert units_for_mean(0.5, 0.0, TARGET) == 1


def test_no_distance_no_number() -> None:
    assert units_for_mean(0.0, 1.0, TARGET) is None
    assert episodes_for_success(PairedCounts(5, 25, 1000), -0.02, TARGET) is None
    assert episodes_for_success(PairedCounts(5, 5, 1000), 0.0, TARGET) is None


@pytest.mark.parametrize("threshold", [0.0, -0.02])
def test_episodes_for_success_decide_as_often_as_promised(threshold: float) -> None:
    needed = episodes_for_success(PairedCounts(50, 30, 1000), threshold, TARGET)
    assert needed is not None
    draws = np.random.default_rng(0).multinomial(needed, [0.05, 0.03, 0.92], size=1500).tolist()
    passed = [paired_score_test(PairedCounts(won, lost, needed), threshold)[0] <= 0.05 for won, lost, _ in draws]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.05)


def test_episodes_for_modes_decide_as_often_as_promised() -> None:
    visits = np.full((2, 2), 50.0)
    one, other = ModeCounts(visits * 0.96, visits), ModeCounts(visits * [0.96, 0.7], visits)
    factor = episodes_for_modes(one, other, 0.8, 1, TARGET, np.random.default_rng(0))
    assert factor is not None
    assert factor > 1
    n = round(50 * factor)
    rng = np.random.default_rng(1)
    first = ModeCounts(rng.binomial(n, 0.96, size=(1000, 2, 2)).astype(float), np.full((1000, 2, 2), float(n)))
    second = ModeCounts(rng.binomial(n, [0.96, 0.7], size=(1000, 2, 2)).astype(float), np.full((1000, 2, 2), float(n)))
    assert np.mean(more_modes_test(first, second, 0.8)[0] <= 0.05) == pytest.approx(0.8, abs=0.12)


def test_modes_at_tau_itself_need_no_end_of_episodes() -> None:
    visits = np.full((1, 1), 50.0)
    one, other = ModeCounts(visits * 0.96, visits), ModeCounts(visits * 0.8, visits)
    assert episodes_for_modes(one, other, 0.8, 1, TARGET, np.random.default_rng(0)) is None


def test_the_target_is_in_standard_errors() -> None:
    assert TARGET.z == pytest.approx(stats.norm.isf(0.05) + stats.norm.ppf(0.8))
