"""Entropies at equal numbers of successes, against exact expectations and their level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from bmd_pipeline.metrics.bootstrap import PairedBootstrap, equal_count_entropies, make_paired_bootstrap
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.metrics.hypotheses import ENTROPY_BOOTSTRAP, compare_episodes
from tests.metrics.drawn import make_episodes

EVEN = np.full(24, 1 / 24)
ALPHA = 0.05 / 3


def episodes_of(mode: np.ndarray, success: np.ndarray, num_modes: int, seed: int = 0) -> Episodes:
    names = tuple(map(str, range(num_modes)))
    part = make_episodes("any", seed, np.zeros_like(mode), success, 1)
    return replace(part, labellings={"way": ModeWeights(names, np.eye(num_modes)[mode])})


def draw(shares: np.ndarray, rate: float, n: int, rng: np.random.Generator, seed: int = 0) -> Episodes:
    return episodes_of(rng.choice(len(shares), size=n, p=shares), rng.random(n) < rate, len(shares), seed)


def sample_of(
    one: tuple[np.ndarray, float], other: tuple[np.ndarray, float], rng: np.random.Generator, n: int = 200
) -> PairedBootstrap:
    parts = {name: [draw(*kind, n, rng, k) for k in range(3)] for name, kind in (("a", one), ("b", other))}
    return make_paired_bootstrap(parts, tau=0.8, num_resamples=100, rng=rng)


def rejections(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float], repetitions: int) -> tuple[float, float]:
    """How often the first is called more even: by the test, and by the bootstrap of plug-in entropies."""
    tested, plugged = [], []
    for repetition in range(repetitions):
        sample = sample_of(one, other, np.random.default_rng(repetition))
        found = compare_episodes(sample, "a", "b", "mode_entropy", threshold=0.0, confidence=0.9)
        assert found.test == ENTROPY_BOOTSTRAP
        tested.append(found.p_above <= ALPHA)
        drawn = sample.within["a"]["mode_entropy"] - sample.within["b"]["mode_entropy"]
        plugged.append((drawn <= 0).mean() <= ALPHA)
    return float(np.mean(tested)), float(np.mean(plugged))


def expect_entropy(counts: Sequence[int], size: int) -> float:
    """Miller's and Madow's entropy of `size` successes chosen from all of them, expected."""
    k = np.arange(size + 1)
    share = k / size
    term = -share * np.log(np.where(k > 0, share, 1.0)) + (k > 0) / (2 * size)
    chances = [scipy.stats.hypergeom.pmf(k, sum(counts), count, size) for count in counts]
    return float(sum(chance @ term for chance in chances) - 1 / (2 * size))


def test_entropies_are_those_of_equally_many_successes() -> None:
    counts, fewer = [60, 25, 10, 5], [12, 6, 2, 0]
    one = episodes_of(np.repeat(np.arange(4), counts), np.ones(100, bool), 4)
    mode = np.concatenate([np.repeat(np.arange(4), fewer), np.zeros(80, int)])
    other = episodes_of(mode, np.arange(100) < 20, 4)
    first, second, resampled = equal_count_entropies([one], [other], "way", 50, np.random.default_rng(0))
    assert first == pytest.approx([expect_entropy(counts, 20)], abs=0.02)
    assert second == pytest.approx([expect_entropy(fewer, 20)], abs=1e-12)  # nothing to thin: exact
    assert resampled.shape == (50, 1)


def test_a_policy_that_fails_more_is_not_called_less_even() -> None:
    """Successes of both spread alike over 24 modes. Plug-in entropies differ by their bias, in every resample."""
    tested, plugged = rejections((EVEN, 0.99), (EVEN, 0.4), 25)
    assert tested <= 0.05
    assert plugged > 0.9


def test_so_few_successes_that_most_modes_are_unseen_prove_nothing() -> None:
    tested, plugged = rejections((EVEN, 0.99), (EVEN, 0.1), 25)  # 20 successes a seed
    assert tested <= 0.05
    assert plugged == 1.0


def test_a_collapsed_policy_is_found_at_either_success_rate() -> None:
    collapsed = 0.9 * np.eye(24)[0] + 0.1 * EVEN
    better = 0.8 * np.eye(24)[0] + 0.2 * EVEN
    assert rejections((EVEN, 0.4), (collapsed, 0.99), 5)[0] == 1.0
    assert rejections((EVEN, 0.99), (collapsed, 0.4), 5)[0] == 1.0
    assert rejections((better, 0.7), (collapsed, 0.99), 10)[0] >= 0.7


@pytest.mark.parametrize("rates", [(0.9, 0.3), (0.9, 0.0), (0.0, 0.0)])
def test_one_mode_or_none_is_never_a_difference(rates: tuple[float, float]) -> None:
    single = np.eye(24)[0]
    sample = sample_of((single, rates[0]), (single, rates[1]), np.random.default_rng(0), n=60)
    found = compare_episodes(sample, "a", "b", "mode_entropy", threshold=0.0, confidence=0.9)
    assert (found.low, found.high, found.p_above, found.p_below) == (0.0, 0.0, 1.0, 1.0)


def test_weights_over_several_modes_are_kept() -> None:
    """Every success is half in either mode: entropy ln 2 without any chance in it, however many there are."""
    rng = np.random.default_rng(0)
    one, other = (
        replace(draw(EVEN, rate, 80, rng), labellings={"way": ModeWeights(("l", "r"), np.full((80, 2), 0.5))})
        for rate in (0.9, 0.2)
    )
    first, second, resampled = equal_count_entropies([one], [other], "way", 20, rng)
    np.testing.assert_allclose([first, second], np.log(2))
    np.testing.assert_allclose(resampled, 0.0, atol=1e-12)


def test_a_resample_draws_the_same_episodes_for_both() -> None:
    rng = np.random.default_rng(0)
    part = draw(EVEN[:12] * 2, 0.8, 100, rng)
    first, second, resampled = equal_count_entropies([part], [part], "way", 50, rng)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(resampled, 0.0)
