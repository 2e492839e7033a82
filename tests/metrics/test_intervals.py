"""Intervals against SciPy, closed forms and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from bmd_pipeline.metrics import bootstrap
from bmd_pipeline.metrics.bootstrap import bootstrap_sums, percentile_interval, proportion_interval, wilson_interval


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_matches_scipy(n: int, data: st.DataObject, confidence: float) -> None:
    wins = data.draw(st.integers(0, n))
    reference = scipy.stats.binomtest(wins, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(wins / n, n, confidence) == pytest.approx(tuple(reference), abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1e4), st.floats(0.51, 0.999))
def test_wilson_holds_its_rate(rate: float, n: float, confidence: float) -> None:
    low, high = wilson_interval(rate, n, confidence)
    assert 0 <= low <= rate <= high <= 1


def test_wilson_without_trials_says_nothing() -> None:
    assert wilson_interval(0.0, 0.0, 0.95) == (0.0, 1.0)


def test_proportion_of_one_seed_is_wilson() -> None:
    assert proportion_interval(np.array([0.7]), np.array([200.0]), 0.95) == wilson_interval(0.7, 200, 0.95)


def test_equal_seeds_pool_and_different_seeds_widen() -> None:
    sizes = np.full(3, 500.0)
    pooled = wilson_interval(0.7, 1500, 0.95)
    assert proportion_interval(np.array([0.7, 0.7, 0.7]), sizes, 0.95) == pytest.approx(pooled)
    low, high = proportion_interval(np.array([0.5, 0.7, 0.9]), sizes, 0.95)
    # Variance of the mean 0.04 / 3 against the binomial 0.21 / 1500: 15.75 trials are left, and the quantile of
    # two degrees of freedom is 4.303 instead of 1.960.
    left = 0.21 / (0.04 / 3) * (1.95996 / 4.30265) ** 2
    assert (low, high) == pytest.approx(wilson_interval(0.7, left, 0.95), abs=1e-5)


def test_seeds_that_differ_less_than_by_chance_count_as_more() -> None:
    """Half of the variance between seeds that chance explains: four times their degrees of freedom."""
    between = 0.21 / 1500 / 2  # variance of the mean
    spread = math.sqrt(3 * between)
    rates = 0.7 + spread * np.array([-1.0, 0.0, 1.0])
    expected = wilson_interval(0.7, 1500 * (1.95996 / scipy.stats.t.ppf(0.975, 8)) ** 2, 0.95)
    assert proportion_interval(rates, np.full(3, 500.0), 0.95) == pytest.approx(expected, abs=1e-6)


def test_a_seed_with_few_trials_makes_the_mean_uncertain() -> None:
    """Seeds count equally: the mean of .8 (5 trials) and .8 (500) is known to about ±.18, not as of 505 trials."""
    low, high = proportion_interval(np.array([0.8, 0.8]), np.array([5.0, 500.0]), 0.95)
    error = math.sqrt(0.16 / 5 + 0.16 / 500) / 2
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    low, high = proportion_interval(np.array([1.0, 1.0]), np.array([1.0, 500.0]), 0.95)
    assert (low, high) == wilson_interval(1.0, 4 / 1.002, 0.95)
    assert low == pytest.approx(0.51, abs=0.01)  # one seed may be 0, for all that a single trial tells


def test_seeds_without_trials_add_none() -> None:
    nothing = np.zeros(3)
    assert proportion_interval(nothing, np.array([0.0, 20.0, 0.0]), 0.95) == wilson_interval(0.0, 20, 0.95)
    assert proportion_interval(nothing, nothing, 0.95) == (0.0, 1.0)
    # Almost none are at least as good as one, and never better than what there is.
    low, high = proportion_interval(np.zeros(2), np.array([40.0, 1e-6]), 0.95)
    assert (low, high) == wilson_interval(0.0, 4 / (1 / 40 + 1), 0.95)
    assert proportion_interval(np.array([0.3]), np.array([0.25]), 0.95) == wilson_interval(0.3, 0.25, 0.95)


@given(st.floats(1, 1e4), st.integers(1, 6), st.floats(0, 1))
@example(1.0, 6, 1.2393355434073208e-140)
def test_equally_many_trials_are_all_worth_something(n: float, num_seeds: int, rate: float) -> None:
    found = proportion_interval(np.full(num_seeds, rate), np.full(num_seeds, n), 0.95)
    assert found == pytest.approx(wilson_interval(rate, num_seeds * n, 0.95), abs=1e-9)


@pytest.mark.parametrize("rate", [0.8, 0.95])
@pytest.mark.parametrize("sizes", [(5, 500), (8, 60, 400), (30, 30, 300)])
def test_intervals_of_unequal_seeds_cover_the_truth(sizes: tuple[int, ...], rate: float) -> None:
    rng, totals = np.random.default_rng(0), np.array(sizes, dtype=np.float64)
    covered, naive = [], []
    for wins in rng.binomial(sizes, rate, size=(500, len(sizes))):
        rates = wins / totals
        low, high = proportion_interval(rates, totals, 0.95)
        covered.append(low <= rate <= high)
        low, high = wilson_interval(float(rates.mean()), totals.sum(), 0.95)
        naive.append(low <= rate <= high)
    assert np.mean(covered) >= 0.93
    assert np.mean(naive) < 0.9


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    wins = np.random.default_rng(0).binomial(200, 0.6, size=2000)
    held = [low <= 0.6 <= high for low, high in (wilson_interval(w / 200, 200, 0.95) for w in wins)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_bootstrap_of_one_seed_has_the_textbook_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 1))
    means = bootstrap_sums([values], rng, 4000)[:, 0, 0] / 400
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.std() == pytest.approx(values.std() / math.sqrt(400), rel=0.05)


def test_bootstrap_interval_of_one_seed_matches_scipy() -> None:
    """Of a ratio of sums, as our metrics are; the two draw differently, so their ends agree up to 20,000 draws."""
    rng = np.random.default_rng(0)
    won, seen = rng.random(300) * 0.7, 0.7 + 0.3 * rng.random(300)
    reference = scipy.stats.bootstrap(
        (won, seen),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    sums = bootstrap_sums([np.stack([won, seen], axis=1)], rng, 20_000)[:, 0]
    interval = percentile_interval(sums[:, 0] / sums[:, 1], won.sum() / seen.sum(), 0.95)
    assert interval == pytest.approx(tuple(reference), abs=0.05 * (reference.high - reference.low))


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03, 0.1])
def test_intervals_over_seeds_cover_the_truth_about_as_often_as_they_say(num_seeds: int, spread: float) -> None:
    """Policies whose true rates differ from seed to seed: plain Wilson on the pooled episodes would be too sure."""
    rng = np.random.default_rng(0)
    size = 0.16 / spread**2 - 1 if spread else 0.0
    covered, naive = [], []
    for _ in range(500):
        truths = rng.beta(0.8 * size, 0.2 * size, size=num_seeds) if spread else np.full(num_seeds, 0.8)
        rates = rng.binomial(1000, truths) / 1000
        low, high = proportion_interval(rates, np.full(num_seeds, 1000.0), 0.95)
        covered.append(low <= 0.8 <= high)
        low, high = wilson_interval(rates.mean(), 1000 * num_seeds, 0.95)
        naive.append(low <= 0.8 <= high)
    assert np.mean(covered) >= 0.9
    assert spread < 0.1 or np.mean(naive) < 0.5


@pytest.mark.parametrize("one_of_a_kind", [False, True])
def test_kinds_are_drawn_as_episodes_are(one_of_a_kind: bool) -> None:
    """How many of each of three kinds are among 96 episodes is multinomial, whichever way they are drawn."""
    kind, resamples = np.arange(96) % 12 // 5, 40_000
    features = np.eye(3)[kind]
    if one_of_a_kind:
        features = np.hstack([features, np.arange(96.0)[:, None]])
    counts = bootstrap_sums([features], np.random.default_rng(0), resamples)[:, 0, :3]
    share = features[:, :3].mean(axis=0)
    np.testing.assert_array_equal(counts.sum(axis=1), 96)
    np.testing.assert_allclose(counts.mean(axis=0), 96 * share, atol=0.1)
    np.testing.assert_allclose(np.cov(counts.T), 96 * (np.diag(share) - np.outer(share, share)), atol=0.6)


def test_bootstrap_sees_the_spread_between_seeds() -> None:
    """Constant within each seed: only the draw of seeds varies, like a sum of two fair draws from {0, 1}."""
    features = [np.zeros((50, 1)), np.ones((50, 1))]
    means = bootstrap_sums(features, np.random.default_rng(0), 4000).sum(axis=(1, 2)) / 100
    values, counts = np.unique(means, return_counts=True)
    np.testing.assert_allclose(values, [0, 0.5, 1])
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)


def test_bootstrap_keeps_an_episode_whole() -> None:
    """Features of one episode are drawn together, and each slot holds as many episodes as its seed."""
    features = [np.array([[1.0, 2.0], [3.0, 6.0]]), np.array([[5.0, 10.0]] * 7)]
    sums = bootstrap_sums([np.hstack([f, np.ones((len(f), 1))]) for f in features], np.random.default_rng(1), 100)
    assert sums.shape == (100, 2, 3)
    np.testing.assert_allclose(sums[..., 1], 2 * sums[..., 0])
    assert set(sums[..., 2].ravel()) == {2.0, 7.0}


def test_bootstrap_in_blocks_draws_the_same_kind_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 100)
    features = np.stack([np.ones(30), np.arange(30.0)], axis=1)
    sums = bootstrap_sums([features], np.random.default_rng(0), 50)
    np.testing.assert_array_equal(sums[..., 0], 30)


def test_bootstrap_is_seeded() -> None:
    features = [np.arange(20.0)[:, None]]
    one, two, other = (bootstrap_sums(features, np.random.default_rng(seed), 10) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_percentile_interval_contains_the_estimate() -> None:
    samples = np.linspace(0, 1, 1001)
    assert percentile_interval(samples, 0.5, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(samples, 1.2, 0.9) == pytest.approx((0.05, 1.2))
