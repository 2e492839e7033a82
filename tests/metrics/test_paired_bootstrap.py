"""Paired bootstrap: policies stay paired, seeds stay strata, intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.bootstrap import PairedBootstrap, make_paired_bootstrap
from tests.metrics.drawn import draw_episodes, make_episodes


def sample_of(*, seeds: int = 3, n: int = 200, resamples: int = 300, **policies: float) -> PairedBootstrap:
    rng = np.random.default_rng(0)
    parts = {
        name: [draw_episodes(name, k, rates=[rate, rate], shares=[1, 1], n=n, rng=rng) for k in range(seeds)]
        for name, rate in policies.items()
    }
    return make_paired_bootstrap(parts, tau=0.8, num_resamples=resamples, rng=rng)


def test_shapes_and_names() -> None:
    sample = sample_of(a=0.9, b=0.5)
    assert list(sample.scores) == ["a", "b"]
    assert sample.seeds == [0, 1, 2]
    assert sample.num_episodes == 200
    assert sample.modes == ("north", "east")
    assert sample.scores["a"]["success_rate"].shape == (3,)
    assert sample.resampled["a"]["success_rate"].shape == (300, 3)
    assert sample.within["a"]["success_rate"].shape == (300,)
    counts = sample.counts("a")
    assert counts.visits.shape == (3, 2)
    np.testing.assert_array_equal(counts.successes.sum(axis=1), [part.success.sum() for part in sample.episodes["a"]])


def test_the_same_policy_twice_never_differs_in_any_resample() -> None:
    rng = np.random.default_rng(0)
    parts = [draw_episodes("a", k, rates=[0.9, 0.4], shares=[2, 1], n=100, rng=rng) for k in range(3)]
    sample = make_paired_bootstrap({"a": parts, "b": parts}, tau=0.8, num_resamples=100, rng=rng)
    for resampled in (sample.resampled, sample.within):
        for name, drawn in resampled["a"].items():
            np.testing.assert_array_equal(drawn, resampled["b"][name])
            assert drawn.std() > 0 or name in ("mutual_information", "present", "solved", "obeyed")


def test_within_keeps_every_seed() -> None:
    """Seeds that succeed always and never: episodes within them can't vary, drawn seeds do."""
    outcomes = [np.ones(50, bool), np.zeros(50, bool)]
    parts = [make_episodes("a", k, np.zeros(50, int), outcome, 2) for k, outcome in enumerate(outcomes)]
    sample = make_paired_bootstrap({"a": parts}, tau=0.8, num_resamples=200, rng=np.random.default_rng(0))
    assert set(sample.within["a"]["success_rate"]) == {0.5}
    assert set(sample.resampled["a"]["success_rate"].mean(axis=1)) == {0.0, 0.5, 1.0}


def test_within_spreads_as_the_binomial_does() -> None:
    sample = sample_of(a=0.8, seeds=2, n=400, resamples=3000)
    expected = np.sqrt(np.mean([rate * (1 - rate) for rate in sample.scores["a"]["success_rate"]]) / 800)
    assert sample.within["a"]["success_rate"].std() == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.9), (0.03, 0.85)])
def test_intervals_over_seeds_cover_the_truth(spread: float, least: float) -> None:
    """Five seeds whose own rates differ by `spread`; ten at a larger spread are in docs/evidence.md."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(120):
        rates = 0.8 + spread * rng.standard_normal(5)
        parts = [draw_episodes("a", k, rates=[r, r], shares=[1, 1], n=150, rng=rng) for k, r in enumerate(rates)]
        drawn = make_paired_bootstrap({"a": parts}, tau=0.5, num_resamples=200, rng=rng).resampled["a"]["success_rate"]
        low, high = np.quantile(drawn.mean(axis=1), (0.025, 0.975))
        covered.append(low <= 0.8 <= high)
    assert least <= np.mean(covered)


def test_scores_are_contrasted_by_subtraction_and_entropies_at_equal_successes() -> None:
    sample = sample_of(a=0.9, b=0.3, n=60)
    rates = sample.contrast("a", "b", "success_rate")
    np.testing.assert_array_equal(rates.one, sample.scores["a"]["success_rate"])
    np.testing.assert_array_equal(
        rates.resampled,
        (sample.resampled["a"]["success_rate"] - sample.resampled["b"]["success_rate"]).mean(axis=1),
    )
    entropy, back = sample.contrast("a", "b", "mode_entropy"), sample.contrast("b", "a", "mode_entropy")
    assert entropy.within.shape == entropy.resampled.shape == (300,)
    np.testing.assert_array_equal(entropy.differences, -back.differences)
    np.testing.assert_allclose(entropy.within, -back.within, atol=1e-11)
    assert sample.contrast("a", "b", "mode_entropy") is entropy


def test_contrasted_entropies_see_the_spread_between_seeds() -> None:
    """Seeds that are collapsed or even, for certain: drawn seeds vary, episodes hardly do."""
    modes = [np.arange(400) % 2, np.zeros(400, int)]
    won = np.ones(400, bool)
    parts = {
        "a": [make_episodes("a", k, mode, won, 2) for k, mode in enumerate(modes)],
        "b": [make_episodes("b", k, np.zeros(400, int), won, 2) for k in range(2)],
    }
    sample = make_paired_bootstrap(parts, tau=0.8, num_resamples=400, rng=np.random.default_rng(0))
    found = sample.contrast("a", "b", "mode_entropy")
    assert found.differences == pytest.approx([np.log(2), 0.0], abs=0.002)
    assert found.within.std() < 0.002
    places, counts = np.unique(np.round(found.resampled / np.log(2), 1), return_counts=True)
    np.testing.assert_array_equal(places, [0, 0.5, 1])
    np.testing.assert_allclose(counts / 400, [0.25, 0.5, 0.25], atol=0.08)
