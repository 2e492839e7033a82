"""What a state of Kitchen means."""

from __future__ import annotations

import pytest
import torch

from bmd_pipeline.tasks.kitchen import env as kitchen

DONE = [value for goal in kitchen.GOALS for value in goal]
"""Joints of the things where all is done."""


def _state(joints: list[float], hand: tuple[float, float, float] = (-0.4, 0.4, 2.1)) -> torch.Tensor:
    handles = [coordinate + 0.3 * index for index in range(3) for coordinate in hand]
    return torch.tensor([[*kitchen.REST_ARM, 0.04, 0.02, *hand, *handles, *joints]])


def test_starts_lie_about_franka_kitchens() -> None:
    middle = torch.tensor((*kitchen.REST_ARM, *kitchen.REST_KETTLE))
    torch.testing.assert_close(kitchen.make_start(torch.full((1, kitchen.KitchenTask.RANDOM_DIM), 0.5))[0], middle)
    widest = kitchen.make_start(torch.ones(1, kitchen.KitchenTask.RANDOM_DIM))[0] - middle
    torch.testing.assert_close(widest, torch.tensor([0.03] * 7 + [0.01] * 2))


def test_progress_passes_one_within_franka_kitchens_bound() -> None:
    assert (kitchen.compute_progress(_state(DONE)) > 1.0).all()
    for offset, is_done in ((0.299, True), (0.301, False)):
        joints = [*DONE]
        joints[1] -= offset  # the kettle's y
        joints[7] += offset  # light switch
        joints[9] -= offset  # slide
        assert (kitchen.compute_progress(_state(joints)) > 1.0).tolist() == [[is_done] * 3]


def test_observation_by_hand() -> None:
    done = torch.tensor([[False, True, True]])
    obs = kitchen.compute_obs(_state(DONE), done)
    assert obs.shape == (1, 27)
    expected = [0.0] * 7 + [1.0, 0.5] + [0.0] * 3 + [float(i) for i in range(3) for _ in range(3)]
    torch.testing.assert_close(obs[0, :21], torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(obs[:, 21:24], kitchen.compute_progress(_state(DONE)))
    assert obs[0, 24:].tolist() == [0.0, 1.0, 1.0]


def test_handles_and_track() -> None:
    state = _state(DONE, hand=(-0.3, 0.2, 1.9))
    torch.testing.assert_close(kitchen.locate_handle(state, "light")[0], torch.tensor([0.0, 0.5, 2.2]))
    best = torch.tensor([[1.2, 0.0, 0.4]])
    assert kitchen.compute_track(state, best)[0].tolist() == pytest.approx([1.2, 0.0, 0.4, -0.3, 1.9])


def test_there_are_six_orders() -> None:
    assert len(set(kitchen.ORDERS)) == 6
    assert kitchen.ORDERS[0] == "kettle-light"
