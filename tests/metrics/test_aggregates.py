"""Interquartile mean and probability of improvement, by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bmd_pipeline.metrics.bootstrap import bootstrap_sums, percentile_interval
from bmd_pipeline.metrics.compare import interquartile_mean, probability_of_improvement


def test_interquartile_mean_cuts_a_quarter_of_the_seeds_at_each_end() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0])
    assert interquartile_mean(values) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == pytest.approx(4.0)  # fewer than four: the mean
    assert interquartile_mean(np.array([1.0, 2.0, 3.0, 100.0])) == pytest.approx(2.5)
    stacked = interquartile_mean(np.stack([values, -values]))
    np.testing.assert_allclose(stacked, [3.5, -3.5])


def test_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    one, other = np.array([3.0, 1.0]), np.array([1.0, 2.0, 0.0])
    # 3 beats all three; 1 ties, loses, wins
    assert probability_of_improvement(one, other) == pytest.approx((3 + 0.5 + 0 + 1) / 6)
    assert probability_of_improvement(one, one) == 0.5
    assert probability_of_improvement(other, one) == pytest.approx(1 - 4.5 / 6)


def test_probability_of_improvement_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 4, 7).astype(float), rng.integers(0, 4, 5).astype(float)
        expected = stats.mannwhitneyu(one, other).statistic / 35
        assert probability_of_improvement(one, other) == pytest.approx(expected)


def test_interquartile_mean_is_the_trimmed_mean_that_rliable_takes() -> None:
    rng = np.random.default_rng(1)
    for num_seeds in (3, 4, 5, 10):
        values = rng.random(num_seeds)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_interval_of_the_interquartile_mean_is_scipys_bootstrap_of_runs() -> None:
    """rliable draws runs within each task; with one task, and runs without chance inside, that is all there is."""
    values = np.random.default_rng(2).random(10)
    reference = stats.bootstrap(
        (values,),
        lambda drawn, axis: stats.trim_mean(drawn, 0.25, axis=axis),
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    sums = bootstrap_sums([np.full((4, 1), value) for value in values], np.random.default_rng(4), 20_000)
    drawn = interquartile_mean(sums[..., 0] / 4)
    found = percentile_interval(drawn, float(interquartile_mean(values)), 0.95)
    assert found == pytest.approx(tuple(reference), abs=0.03 * (reference.high - reference.low))
