"""The planar controller."""

from __future__ import annotations

import numpy as np
import torch

from bmd_pipeline.sim.arm import REACH, STEP_METRES, UPRIGHT, hold_tip, hold_tips

TIP_HEIGHT = 0.014


def _poses(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    position = torch.rand(count, 3, generator=generator) * torch.tensor([0.9, 1.0, 0.05])
    position -= torch.tensor([0.6, 0.5, 0.01])
    quaternion = torch.tensor(UPRIGHT) + 0.3 * torch.randn(count, 4, generator=generator)
    quaternion = quaternion / quaternion.norm(dim=1, keepdim=True) * torch.sign(torch.randn(count, 1))
    return torch.cat((position, quaternion), 1), 2.0 * torch.rand(count, 2, generator=generator) - 1.0


def test_both_forms_agree() -> None:
    tip, action = _poses(200)
    batch = hold_tips(action, tip, -0.1, TIP_HEIGHT)
    for row in range(len(tip)):
        single = hold_tip(*action[row].tolist(), tip[row].tolist(), -0.1, TIP_HEIGHT)
        np.testing.assert_allclose(batch[row].numpy(), single, atol=1e-4)


def test_at_rest_nothing_is_added() -> None:
    held = hold_tip(0.3, -0.2, (-0.1, 0.0, TIP_HEIGHT, *UPRIGHT), -0.1, TIP_HEIGHT)
    np.testing.assert_allclose(held, [0.3, -0.2, 0.0, 0.0, 0.0, 0.0], atol=1e-9)


def test_height_and_tilt_are_corrected() -> None:
    low = hold_tip(0.0, 0.0, (-0.1, 0.0, TIP_HEIGHT - 0.01, *UPRIGHT), -0.1, TIP_HEIGHT)
    assert low[2] > 0
    tilted = np.add(UPRIGHT, [0.05, 0.0, 0.0, 0.0])
    held = hold_tip(0.0, 0.0, (-0.1, 0.0, TIP_HEIGHT, *(tilted / np.linalg.norm(tilted))), -0.1, TIP_HEIGHT)
    assert np.abs(held[3:]).max() > 0.1


def test_the_tip_stays_in_reach() -> None:
    inner = (-0.615 + REACH[0] + 0.5 * STEP_METRES, 0.0, TIP_HEIGHT, *UPRIGHT)
    np.testing.assert_allclose(hold_tip(-1.0, 0.7, inner, -0.1, TIP_HEIGHT)[:2], [-0.5, 0.7], atol=1e-9)
    outer = (-0.615 + REACH[1], 0.0, TIP_HEIGHT, *UPRIGHT)
    np.testing.assert_allclose(hold_tip(1.0, 0.7, outer, -0.1, TIP_HEIGHT)[:2], [0.0, 0.7], atol=1e-9)
    np.testing.assert_allclose(hold_tip(-1.0, 0.7, outer, -0.1, TIP_HEIGHT)[:2], [-1.0, 0.7], atol=1e-9)
