"""Rotation actions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bmd_pipeline.sim.arm import turn_all_towards, turn_towards

SCALE = -0.1


def _quaternion(angle: float, axis: int) -> list[float]:
    turned = [math.cos(angle / 2), 0.0, 0.0, 0.0]
    turned[1 + axis] = math.sin(angle / 2)
    return turned


def test_both_forms_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(100, 4, generator=generator)
    found = found / found.norm(dim=1, keepdim=True)
    wanted = found[0].tolist()
    batch = turn_all_towards(wanted, found, SCALE)
    for row in range(len(found)):
        np.testing.assert_allclose(batch[row].numpy(), turn_towards(wanted, found[row].tolist(), SCALE), atol=1e-4)
    assert batch[0].abs().max() < 1e-5  # nothing is missing


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_asks_for_a_share_of_the_missing_angle(axis: int) -> None:
    action = turn_towards(_quaternion(0.05, axis), _quaternion(0.0, axis), SCALE)
    expected = [0.0, 0.0, 0.0]
    expected[axis] = 1.6 * 0.025 / SCALE
    np.testing.assert_allclose(action, expected, rtol=1e-3)


def test_takes_the_shorter_way_and_stays_in_bounds() -> None:
    same = [-part for part in _quaternion(0.02, 2)]  # the same rotation as its negative
    np.testing.assert_allclose(
        turn_towards(same, _quaternion(0.0, 2), SCALE), turn_towards(_quaternion(0.02, 2), _quaternion(0.0, 2), SCALE)
    )
    assert turn_towards(_quaternion(2.0, 1), _quaternion(0.0, 1), SCALE) == (0.0, -1.0, 0.0)
