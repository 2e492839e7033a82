"""Paired rollouts: the statistic against brute force, level, power, and what must not fool the test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bmd_pipeline.metrics import mode_checks
from bmd_pipeline.metrics.mode_checks import compare_paired_rollouts, concavity_dip

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats]]


def shape(one: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Paired rollouts as trajectories of single points."""
    return one[:, None], other[:, None]


def brute_force_gap(values: list[float]) -> float:
    """The majorant at a point is the highest chord over it."""
    places = sorted(set(values))
    corners = [(x, np.mean([value <= x for value in values])) for x in places]
    if corners[0][0] > 0:
        corners = [(0.0, 0.0), *corners]
    gaps = []
    for (_, before), (x, _) in itertools.pairwise(corners):
        chords = [
            y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
            for x0, y0 in corners
            for x1, y1 in corners
            if x0 <= x <= x1 and (x1 > x0 or x0 == x)
        ]
        gaps.append(max(chords) - before)
    return max(gaps, default=0.0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=10))
@settings(max_examples=200)
def test_gap_matches_brute_force(values: list[int]) -> None:
    assert concavity_dip(np.array(values, np.float64)) == pytest.approx(brute_force_gap([float(v) for v in values]))


def test_gap_by_hand() -> None:
    # Half of the pairs parted by 1: the majorant is 1 at the end and the function still 1/2 just before it.
    assert concavity_dip(np.array([0.0, 0.0, 1.0, 1.0])) == pytest.approx(0.5)
    # The steps end on one line, and each begins a quarter below it.
    assert concavity_dip(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(0.25)


def one_mode(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return rng.normal(size=(n, 3)), rng.normal(size=(n, 3))


def skewed(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return rng.exponential(size=(n, 3)), rng.exponential(size=(n, 3))


def flat(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return rng.random((n, 1)), rng.random((n, 1))


def by_start(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Left from some starts and right from others, but always the same from the same start."""
    start = rng.choice([-5.0, 5.0], size=(n, 1))
    one, other = one_mode(rng, n)
    return start + one, start + other


@pytest.mark.parametrize("draw", [one_mode, skewed, flat, by_start])
def test_one_mode_is_rarely_called_several(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode_checks, "NULL_DRAWS", 99)
    rng = np.random.default_rng(0)
    p = [compare_paired_rollouts(*shape(*draw(rng, 60)), rng=rng).p for _ in range(40)]
    assert np.mean([value <= 0.05 for value in p]) <= 0.1  # at most .05 in truth, and an error of .035


def split(share: float, gap: float) -> Draw:
    """Two modes, apart on the first axis, with more spread on the second."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
        def play() -> Floats:
            way = rng.random(n) < share
            return np.stack([gap * way, rng.normal(size=n)], axis=1) + 0.3 * rng.normal(size=(n, 2))

        return play(), play()

    return draw


def test_two_ways_are_found_however_large_other_differences_are() -> None:
    rng = np.random.default_rng(0)
    one, other = split(0.5, 4.0)(rng, 400)
    assert compare_paired_rollouts(*shape(one, other), rng=rng).p < 0.001


def test_equal_pairs_have_one_mode() -> None:
    rng = np.random.default_rng(0)
    same = rng.normal(size=(40, 3))
    assert compare_paired_rollouts(*shape(same, same), rng=rng).p == 1.0
