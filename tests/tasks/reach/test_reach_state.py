"""What a state of Reach means."""

from __future__ import annotations

import pytest
import torch

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.tasks.reach.env import (
    GOAL_MIDDLE,
    GOAL_SPREAD,
    LANE,
    POST,
    REST_QPOS,
    compute_obs,
    compute_path_length,
    compute_track,
    has_hit,
    make_start,
)
from bmd_pipeline.tasks.registry import load_options

GOAL = (0.12, 0.0, 0.175)


def _state(x: float, y: float, z: float = 0.175, quaternion: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0)) -> torch.Tensor:
    return torch.tensor([[*REST_QPOS[:7], x, y, z, *quaternion, *GOAL]])


def test_observation_by_hand() -> None:
    obs = compute_obs(_state(POST[0] - 0.05, 0.02, quaternion=(0.0, -0.8, 0.6, 0.0)))
    expected = [0.0] * 7 + [-0.5, 0.2, 0.0] + [0.0, 0.8, -0.6, 0.0] + [2.1, -0.2, 0.0] + [1.0, 0.0, 0.0]
    torch.testing.assert_close(obs, torch.tensor([expected]), atol=1e-5, rtol=0)
    assert obs.shape == (1, 20)


def test_the_path_follows_the_shorter_way_round() -> None:
    left, right = _state(-0.15, 0.03), _state(-0.15, -0.03)
    torch.testing.assert_close(compute_path_length(left), compute_path_length(right))
    assert float(compute_path_length(_state(-0.15, 0.0))) > float(compute_path_length(left))  # nearer to a lane
    before = torch.hypot(torch.tensor(0.11), torch.tensor(LANE)) + torch.hypot(torch.tensor(0.16), torch.tensor(LANE))
    torch.testing.assert_close(compute_path_length(_state(POST[0] - 0.11, 0.0)), before[None] / 0.45)
    behind = compute_path_length(_state(0.05, 0.0))
    torch.testing.assert_close(behind, torch.tensor([0.07 / 0.45]))
    assert float(compute_path_length(_state(*GOAL))) == 0.0


@pytest.mark.parametrize(
    ("x", "y", "hit"),
    [
        (0.0, 0.0, True),
        (0.08, 0.0, False),
        (-0.06, 0.14, True),
        (-0.06, -0.14, True),
        (0.0, LANE, False),
        (-0.14, 0.0, False),
    ],
)
def test_the_hand_s_outline_decides_a_hit(x: float, y: float, hit: bool) -> None:
    assert has_hit(_state(POST[0] + x, y)).tolist() == [hit]


def test_track_is_the_tip_and_its_distance_to_the_goal() -> None:
    torch.testing.assert_close(compute_track(_state(0.12, 0.03)), torch.tensor([[0.12, 0.03, 0.175, 0.03]]))


def test_starts_lie_within_their_spread() -> None:
    starts = make_start(torch.rand(400, 10, generator=torch.Generator().manual_seed(0)))
    offset = (starts[:, 9:] - torch.tensor(GOAL_MIDDLE)).abs()
    assert (offset <= torch.tensor(GOAL_SPREAD) + 1e-6).all()
    assert (offset.max(0).values > 0.95 * torch.tensor(GOAL_SPREAD)).all()
    assert not starts[:, 7:9].any()  # shut
    assert (starts[:, :7] - torch.tensor(REST_QPOS[:7])).abs().max() <= 0.02 + 1e-6


@pytest.mark.parametrize(("key", "value"), [("goal_radius", 0.0), ("side_weights", [1.0]), ("post", 1)])
def test_bad_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"env.{key}"):
        load_options("Reach", {key: value})
