"""The range of λ in which success and solved modes hold, and how it is told."""

from __future__ import annotations

import pytest

from bmd_pipeline.metrics.plateau import Floors, Range, WeightScore, find_plateau, set_floors


def scores(*rows: tuple[float, float, float]) -> list[WeightScore]:
    return [WeightScore(*row) for row in rows]


SWEPT = scores((0, 0.99, 0.25), (0.1, 0.98, 0.9), (0.3, 0.98, 1.0), (1, 0.97, 1.0), (3, 0.8, 1.0))


def test_floors_lie_below_the_best() -> None:
    floors = set_floors(SWEPT, 0.02, 0.1)
    assert (floors.success, floors.solved) == pytest.approx((0.97, 0.9))


def test_the_plateau_is_where_both_hold() -> None:
    found = find_plateau(SWEPT, set_floors(SWEPT, 0.02, 0.1))
    assert found == Range(1, 3, 1.0)
    narrower = find_plateau(SWEPT, set_floors(SWEPT, 0.01, 0.05))
    assert narrower == Range(2, 2, 0.0)


def test_where_one_is_traded_for_the_other_there_is_none() -> None:
    traded = scores((0, 0.99, 0.25), (1, 0.6, 1.0))
    assert find_plateau(traded, set_floors(traded, 0.02, 0.1)) is None


def test_the_widest_of_several_ranges_wins() -> None:
    rows = [(w, 0.9 if held else 0.1, 1.0) for w, held in ((0, 1), (0.01, 1), (0.1, 0), (1, 1), (3, 1), (10, 1))]
    found = find_plateau(scores(*rows), Floors(0.8, 0.8))
    assert found is not None
    assert (found.first, found.last, found.decades) == (3, 5, pytest.approx(1.0))


def test_a_policy_without_modes_has_nothing_to_hold() -> None:
    rows = scores((0, 0.3, 0.0), (1, 0.3, 0.0))
    floors = set_floors(rows, 0.02, 0.05)
    assert floors.solved == 0.0
    assert find_plateau(rows, floors) is None


def test_rounding_does_not_push_a_point_below_its_floor() -> None:
    assert Floors(0.3, 0.5).hold(0.1 + 0.2 - 1e-17, 0.5)
