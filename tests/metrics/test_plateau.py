"""The range of a setting in which success and solved modes hold."""

from __future__ import annotations

import pytest

from bmd_pipeline.metrics.schemas import Plateau
from bmd_pipeline.metrics.stability import Floors, find_plateau, set_floors

WEIGHTS, SUCCESS, SOLVED = (0, 0.1, 0.3, 1, 3), (0.99, 0.98, 0.98, 0.97, 0.8), (0.25, 0.9, 1.0, 1.0, 1.0)


def find(floors: Floors, success: tuple[float, ...] = SUCCESS, solved: tuple[float, ...] = SOLVED) -> Plateau | None:
    holds = [floors.hold(*scores) for scores in zip(success, solved, strict=True)]
    return find_plateau([str(weight) for weight in WEIGHTS], WEIGHTS[: len(holds)], holds)


def test_floors_lie_below_the_best() -> None:
    floors = set_floors(SUCCESS, SOLVED, 0.02, 0.1)
    assert (floors.success, floors.solved) == pytest.approx((0.97, 0.9))


def test_the_plateau_is_where_both_hold() -> None:
    wide, narrow = (find(set_floors(SUCCESS, SOLVED, *tolerances)) for tolerances in ((0.02, 0.1), (0.01, 0.05)))
    ends = {"open_below": True, "open_above": False}
    assert wide == Plateau(names=["0.1", "0.3", "1"], low=0.1, high=1, decades=1.0, **ends)
    assert narrow == Plateau(names=["0.3"], low=0.3, high=0.3, decades=0.0, open_below=False, open_above=False)


def test_where_one_is_traded_for_the_other_there_is_none() -> None:
    success, solved = (0.99, 0.6), (0.25, 1.0)
    assert find(set_floors(success, solved, 0.02, 0.1), success, solved) is None


def test_the_widest_of_several_ranges_wins() -> None:
    found = find_plateau("abcdef", (0, 0.01, 0.1, 1, 3, 10), (True, True, False, True, True, True))
    assert found is not None
    assert (found.names, found.low, found.high) == (["d", "e", "f"], 1, 10)
    assert found.decades == pytest.approx(1.0)
    assert (found.open_below, found.open_above) == (False, True)


def test_a_policy_without_modes_has_nothing_to_hold() -> None:
    success, solved = (0.3, 0.3), (0.0, 0.0)
    floors = set_floors(success, solved, 0.02, 0.05)
    assert floors.solved == 0.0
    assert find(floors, success, solved) is None


def test_rounding_does_not_push_a_point_below_its_floor() -> None:
    assert Floors(0.3, 0.5).hold(0.1 + 0.2 - 1e-17, 0.5)
