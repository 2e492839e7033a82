"""The sign-flip test over seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bmd_pipeline.metrics.hypotheses import seeds_to_reach, sign_flip_test, smallest_p


def flip(differences: list[float], threshold: float = 0.0) -> tuple[float, float]:
    return sign_flip_test(np.array(differences), threshold, np.random.default_rng(0))


def test_p_counts_the_flips_that_are_as_extreme() -> None:
    # Sums over the eight flips of 1, 2, 3: only all plus reaches 6, only all minus -6.
    assert flip([1, 2, 3]) == (1 / 8, 1.0)
    assert flip([-1, 2, 3]) == (2 / 8, 7 / 8)
    assert flip([-1, -2, -3]) == (1.0, 1 / 8)


def test_p_is_that_of_all_flips_one_by_one() -> None:
    rng = np.random.default_rng(3)
    for num_seeds in (2, 5, 8):
        differences = rng.normal(0.3, 1, num_seeds)
        sums = [np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=num_seeds)]
        above, below = flip(list(differences))
        assert above == pytest.approx(np.mean(np.array(sums) >= differences.sum() - 1e-12))
        assert below == pytest.approx(np.mean(np.array(sums) <= differences.sum() + 1e-12))


def test_the_threshold_shifts_the_differences() -> None:
    assert flip([-0.01, -0.01, -0.01], threshold=-0.02) == (1 / 8, 1.0)
    assert flip([-0.05, -0.05, -0.05], threshold=-0.02) == (1.0, 1 / 8)


def test_equal_seeds_tie_in_spite_of_rounding() -> None:
    assert flip([0.93 - 0.95] * 4, threshold=-0.02) == (1.0, 1.0)
    assert flip([0.0] * 5) == (1.0, 1.0)


def test_one_seed_says_next_to_nothing() -> None:
    assert flip([0.4]) == (0.5, 1.0)
    assert flip([-0.4]) == (1.0, 0.5)


def test_many_seeds_are_flipped_at_random_and_never_give_zero() -> None:
    above, below = flip([1.0] * 40)
    assert 0 < above < 1e-3
    assert below == pytest.approx(1.0, abs=1e-3)


def test_it_rarely_rejects_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    p = [sign_flip_test(rng.normal(size=6), 0.0, rng)[0] for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.09


@pytest.mark.parametrize(("family", "seeds"), [(1, 5), (3, 6), (9, 8)])
def test_seeds_to_reach_is_where_the_least_p_passes(family: int, seeds: int) -> None:
    assert seeds_to_reach(0.05, family) == seeds
    assert family * smallest_p(seeds) <= 0.05 < family * smallest_p(seeds - 1)


def test_the_least_p_is_reached_by_seeds_that_all_agree() -> None:
    for num_seeds in (1, 3, 6):
        assert flip([0.1 * (i + 1) for i in range(num_seeds)])[0] == smallest_p(num_seeds)


def test_a_level_that_is_a_power_of_two_needs_no_extra_seed() -> None:
    assert seeds_to_reach(0.125, 1) == 3
