"""What a state of Lift means."""

from __future__ import annotations

import math

import pytest
import torch

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.tasks.lift.env import (
    BAR_MIDDLE,
    BAR_SPREAD,
    GRASP_AT,
    HALF_HEIGHT,
    REST_QPOS,
    compute_closeness,
    compute_obs,
    compute_track,
    is_at_far_end,
    make_start,
)
from bmd_pipeline.tasks.registry import load_options


def _state(
    tip: tuple[float, float, float], bar: tuple[float, float, float] = (0.0, 0.0, HALF_HEIGHT), yaw: float = 0.0
) -> torch.Tensor:
    turned = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
    return torch.tensor([[*REST_QPOS, *tip, 0.0, -1.0, 0.0, 0.0, *bar, *turned]])


def test_observation_by_hand() -> None:
    obs = compute_obs(_state((0.0, 0.08, 0.12), bar=(0.0, 0.0, 0.02), yaw=math.pi / 2))
    expected = [0.0] * 7 + [1.0] + [0.0, 0.8, 1.2] + [0.0, 1.0, 0.0, 0.0] + [0.0, 0.0, 0.2] + [0.0, 1.0, 0.0]
    expected += [0.8, 0.0, 1.0]  # the bar's x is the world's y
    torch.testing.assert_close(obs, torch.tensor([expected]), atol=1e-5, rtol=0)
    assert obs.shape == (1, 24)


def test_track_and_end_are_told_in_the_bar_s_frame() -> None:
    states = torch.cat([_state((-0.06, 0.02, 0.05), yaw=math.pi), _state((-0.06, 0.02, 0.05))])
    torch.testing.assert_close(compute_track(states)[:, 0], torch.tensor([0.06, -0.06]), atol=1e-5, rtol=0)
    torch.testing.assert_close(compute_track(states)[0, 1:], torch.tensor([0.05, 0.02, -0.06, 0.02]))
    assert is_at_far_end(states).tolist() == [True, False]


def test_closeness_counts_coming_near_then_lifting() -> None:
    def closeness(*arguments: tuple[float, float, float]) -> float:
        return float(compute_closeness(_state(*arguments), lift_height=0.1))

    assert closeness((0.0, 0.0, 0.5)) == 0.0
    assert closeness((GRASP_AT, 0.0, HALF_HEIGHT)) == pytest.approx(0.4)
    assert closeness((-GRASP_AT, 0.0, HALF_HEIGHT)) == pytest.approx(0.4)
    assert closeness((GRASP_AT - 0.04, 0.03, HALF_HEIGHT)) == pytest.approx(0.4 * 0.75)
    assert closeness((GRASP_AT, 0.0, 0.06), (0.0, 0.0, 0.06)) == pytest.approx(0.7)
    assert closeness((GRASP_AT, 0.0, 0.2), (0.0, 0.0, 0.2)) == pytest.approx(1.0)


def test_starts_lie_within_their_spread() -> None:
    starts = make_start(torch.rand(400, 10, generator=torch.Generator().manual_seed(0)), yaw_range_deg=20.0)
    offset = (starts[:, 9:11] - torch.tensor(BAR_MIDDLE)).abs()
    assert offset.max() <= BAR_SPREAD + 1e-6
    assert offset.min(1).values.max() > 0.8 * BAR_SPREAD
    yaw = starts[:, 11].rad2deg()
    assert -20.0 <= float(yaw.min()) < -19.0
    assert 19.0 < float(yaw.max()) <= 20.0
    assert (starts[:, 7:9] == 0.04).all()  # open


@pytest.mark.parametrize(("key", "value"), [("lift_height", 0.0), ("yaw_range_deg", 90.0), ("end_weights", [1.0])])
def test_bad_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"env.{key}"):
        load_options("Lift", {key: value})
