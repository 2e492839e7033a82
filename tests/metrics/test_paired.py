"""Tests over episodes: each score has one that fits it."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.bootstrap import PairedBootstrap, make_paired_bootstrap
from bmd_pipeline.metrics.hypotheses import compare_episodes, two_sided
from bmd_pipeline.metrics.scores import COMPARED
from tests.metrics.drawn import draw_episodes

EVEN, UNEVEN = [1, 1, 1, 1], [8, 1, 1, 1]


def sample_of(rng: np.random.Generator, n: int = 250, resamples: int = 300, **policies: tuple) -> PairedBootstrap:
    parts = {
        name: [draw_episodes(name, k, rates=rates, shares=shares, n=n, rng=rng) for k in range(3)]
        for name, (rates, shares) in policies.items()
    }
    return make_paired_bootstrap(parts, tau=0.8, num_resamples=resamples, rng=rng)


def test_differences_are_found_in_the_right_direction() -> None:
    collapsed = [0.95, 0.0, 0.0, 0.0]  # whose absent modes take many episodes to show
    sample = sample_of(np.random.default_rng(0), n=1500, a=([0.95] * 4, EVEN), b=(collapsed, UNEVEN))
    for score in COMPARED:
        if score == "obeyed":  # without codes it is 1 / K for both
            continue
        found = compare_episodes(sample, "a", "b", score, threshold=0.0, confidence=0.9)
        back = compare_episodes(sample, "b", "a", score, threshold=0.0, confidence=0.9)
        assert found.p_above < 0.01 < 0.9 < found.p_below, score
        assert 0 < found.low <= found.high
        assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
        assert back.p_below == pytest.approx(found.p_above)


def test_a_policy_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(0)
    parts = [draw_episodes("a", k, rates=[0.9] * 4, shares=UNEVEN, n=100, rng=rng) for k in range(2)]
    sample = make_paired_bootstrap({"a": parts, "b": parts}, tau=0.8, num_resamples=100, rng=rng)
    for score in COMPARED:
        found = compare_episodes(sample, "a", "b", score, threshold=0.0, confidence=0.9)
        assert two_sided(found.p_above, found.p_below) == 1.0, score
        assert found.low <= 0 <= found.high


def test_the_margin_moves_the_question() -> None:
    sample = sample_of(np.random.default_rng(2), n=800, a=([0.94] * 4, EVEN), b=([0.95] * 4, EVEN))
    strict = compare_episodes(sample, "a", "b", "success_rate", threshold=0.0, confidence=0.9)
    lenient = compare_episodes(sample, "a", "b", "success_rate", threshold=-0.05, confidence=0.9)
    assert lenient.p_above < 0.001 < strict.p_above
    assert (strict.low, strict.high) == (lenient.low, lenient.high)


def test_policies_with_other_favourites_are_not_called_less_even() -> None:
    """Equal entropy, other shares. Swapping episodes between the policies would reject far too often."""
    rejected, swapped = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        shares = [0.4, 0.3, 0.2, 0.1]
        sample = sample_of(rng, n=200, resamples=150, a=([0.95] * 4, shares), b=([0.95] * 4, shares[::-1]))
        found = compare_episodes(sample, "a", "b", "mode_entropy", threshold=0.0, confidence=0.9)
        rejected.append(two_sided(found.p_above, found.p_below) <= 0.1)
        swapped.append(_swap_test(sample, rng) <= 0.1)
    assert np.mean(rejected) <= 0.17
    assert np.mean(swapped) > 0.3


def _swap_test(sample: PairedBootstrap, rng: np.random.Generator) -> float:
    """Two-sided p of the permutation test that swaps paired episodes within seeds."""

    def entropy(counts: np.ndarray) -> np.ndarray:
        share = counts / counts.sum(axis=-1, keepdims=True)
        return -(share * np.log(share)).sum(axis=-1)

    differences = 0.0
    observed = 0.0
    for one, other in zip(sample.episodes["a"], sample.episodes["b"], strict=True):
        won = [part.success[:, None] * part.labellings["goal"].weights for part in (one, other)]
        swap = rng.integers(0, 2, size=(150, len(one))).astype(float)
        first = won[0].sum(axis=0) + swap @ (won[1] - won[0])
        total = won[0].sum(axis=0) + won[1].sum(axis=0)
        differences = differences + entropy(first) - entropy(total - first)
        observed += entropy(won[0].sum(axis=0)) - entropy(won[1].sum(axis=0))
    return float((1 + (np.abs(differences) >= abs(observed)).sum()) / 151)
