"""Whether a policy does what it is asked for: by hand, and the laws that hold for every policy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.scores import choose_behaviours, compute_obedience, obeyed_features
from tests.metrics.drawn import make_episodes


def commanded(code: list[int], mode: list[int], success: list[bool], behaviours: tuple[str | None, ...]) -> Episodes:
    part = make_episodes("dppo-bmd", 0, np.array(mode), np.array(success), 4)
    return replace(part, num_codes=len(behaviours), code=np.array(code), behaviours={"goal": behaviours})


def obeyed(part: Episodes) -> tuple[float, float]:
    mean, worst = compute_obedience(obeyed_features(part, "goal").sum(axis=0))
    return float(mean), float(worst)


def test_successes_alone_are_counted() -> None:
    """Code 0 shows its north in two of three successes, code 1 its east in the one it has."""
    part = commanded([0, 0, 0, 0, 1, 1], [0, 0, 1, 2, 1, 0], [True] * 3 + [False, True, False], ("north", "east"))
    assert obeyed(part) == pytest.approx(((2 / 3 + 1) / 2, 2 / 3))


def test_codes_with_one_behaviour_count_once() -> None:
    """Three codes go north, one east: east weighs a half, and the three are pooled."""
    part = commanded([0, 0, 1, 2, 3], [0, 0, 0, 1, 1], [True] * 5, ("north", "north", "north", "east"))
    assert obeyed(part) == pytest.approx(((3 / 4 + 1) / 2, 3 / 4))


def test_codes_without_a_behaviour_count_as_zero() -> None:
    part = commanded([0, 1, 2], [0, 0, 1], [True] * 3, ("north", None, None))
    assert obeyed(part) == pytest.approx((1 / 3, 0.0))


def test_a_behaviour_that_never_succeeds_is_not_obeyed() -> None:
    assert obeyed(commanded([0, 1], [0, 1], [True, False], ("north", "east"))) == (0.5, 0.0)


def test_behaviours_are_what_most_successes_show() -> None:
    part = commanded([0, 0, 0, 1, 1], [2, 2, 0, 3, 3], [True, True, True, False, False], (None, None))
    assert choose_behaviours(part, "goal") == ("south", None)


outcomes = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=30)


@given(outcomes)
def test_a_policy_without_codes_obeys_by_its_shares(rows: list[tuple[int, bool]]) -> None:
    """Asked for each mode in turn it does what it does anyway: 1 / K in the mean, its smallest share at worst."""
    mode, success = map(np.array, zip(*rows, strict=True))
    counts = np.bincount(mode[success], minlength=4)
    expected = (1 / 4, counts.min() / counts.sum()) if counts.sum() else (0.0, 0.0)
    assert obeyed(make_episodes("dppo", 0, mode, success, 4)) == pytest.approx(expected)


@given(outcomes, st.integers(0, 2**32 - 1))
def test_names_and_order_decide_nothing(rows: list[tuple[int, bool]], seed: int) -> None:
    mode, success = map(np.array, zip(*rows, strict=True))
    code, behaviours = np.arange(len(rows)) % 3, ("north", "east", None)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(rows)), rng.permutation(3)  # code k is called names[k] in the second table
    renamed = tuple(behaviours[int(k)] for k in np.argsort(names))
    mean, worst = obeyed(commanded(code.tolist(), mode.tolist(), success.tolist(), behaviours))
    other = commanded(names[code[order]].tolist(), mode[order].tolist(), success[order].tolist(), renamed)
    assert obeyed(other) == pytest.approx((mean, worst))
    assert 0 <= worst <= mean <= 1
