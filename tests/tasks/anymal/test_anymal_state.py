"""What a state of Anymal means, and who its modes are."""

from __future__ import annotations

import math

import pytest
import torch

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.tasks.anymal.env import (
    DIRECTIONS,
    PERIOD,
    REST_HEIGHT,
    REST_QPOS,
    TRACK_NAMES,
    compute_closeness,
    compute_distances,
    compute_heading,
    compute_obs,
    compute_track,
    has_fallen,
    make_base_pose,
    make_start,
    place_beacons,
)
from bmd_pipeline.tasks.anymal.modes import LABELLINGS
from bmd_pipeline.tasks.registry import load_options

(LABELLING,) = LABELLINGS


def _state(
    x: float = 0.0, y: float = 0.0, z: float = REST_HEIGHT, heading: float = 0.0, roll: float = 0.0
) -> torch.Tensor:
    """At rest, the beacons two metres away."""
    quaternion = (math.cos((heading + roll) / 2), math.sin(roll / 2), 0.0, math.sin(heading / 2))  # one of them is 0
    return torch.tensor([[*REST_QPOS, *[0.0] * 12, x, y, z, *quaternion, *[0.0] * 6, 2.0]])


def test_observation_by_hand() -> None:
    state = _state(0.5, -1.0, REST_HEIGHT - 0.05, heading=math.pi / 2)
    state[0, 0] += 0.3
    state[0, 12] = 5.0
    state[0, 31:34] = torch.tensor([0.0, 0.5, 0.0])  # along y, which is forward at this heading
    state[0, 34:37] = torch.tensor([0.0, 0.0, 1.0])
    obs = compute_obs(state, torch.tensor([PERIOD // 2]))
    joints = [1.0] + [0.0] * 11
    base = [-0.5, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0]
    expected = torch.tensor([[*joints, *joints, *base, 0.25, -0.5, 10.0, 0.0, -1.0]])
    torch.testing.assert_close(obs, expected, atol=1e-5, rtol=0)
    assert obs.shape == (1, 41)
    assert state.shape == (1, 38)


def test_the_clock_comes_round() -> None:
    now, later = (compute_obs(_state(), torch.tensor([step])) for step in (3, 3 + PERIOD))
    torch.testing.assert_close(now, later, atol=1e-4, rtol=0)
    assert not torch.allclose(now, compute_obs(_state(), torch.tensor([4])))


def test_down_is_seen_from_the_body() -> None:
    rolled = compute_obs(_state(roll=math.pi / 2), torch.zeros(1))  # onto its right side: down is -y of the body
    torch.testing.assert_close(rolled[:, 25:28], torch.tensor([[0.0, -1.0, 0.0]]), atol=1e-6, rtol=0)


def test_closeness_is_the_share_of_the_way_to_the_nearest_beacon() -> None:
    assert float(compute_closeness(_state())) == 0.0
    assert float(compute_closeness(_state(0.0, -2.0))) == 1.0
    assert float(compute_closeness(_state(-0.5, 0.0))) == pytest.approx(0.25)
    torch.testing.assert_close(compute_distances(_state(2.0, 0.0)), torch.tensor([[0.0, 8**0.5, 4.0, 8**0.5]]))
    assert place_beacons(torch.tensor([2.0]))[0].tolist() == [[2, 0], [0, 2], [-2, 0], [0, -2]]


@pytest.mark.parametrize(
    ("height", "roll", "fallen"),
    [(REST_HEIGHT, 0.0, False), (0.31, 0.0, False), (0.29, 0.0, True), (0.5, 0.75, False), (0.5, 0.85, True)],
)
def test_falling_is_being_low_or_tilted(height: float, roll: float, fallen: bool) -> None:
    assert has_fallen(_state(z=height, roll=roll)).tolist() == [fallen]


def test_track_is_place_heading_and_height() -> None:
    expected = torch.tensor([[0.1, -0.2, 0.3, REST_HEIGHT]])
    torch.testing.assert_close(compute_track(_state(0.1, -0.2, heading=0.3)), expected)


def test_starts_lie_within_their_spread() -> None:
    starts = make_start(torch.rand(400, 14, generator=torch.Generator().manual_seed(0)))
    offset = (starts - torch.tensor([*REST_QPOS, 0.0, 1.0])).abs().max(0).values
    spread = torch.tensor([0.05] * 12 + [0.1, 0.1])
    assert (offset <= spread + 1e-6).all()
    assert (offset > 0.9 * spread).all()
    position, orientation = make_base_pose(starts[:, 12])
    state = torch.cat((torch.zeros(400, 24), position, orientation, torch.zeros(400, 7)), 1)
    torch.testing.assert_close(compute_heading(state), starts[:, 12])
    assert not has_fallen(state).any()


def _weigh(x: float, y: float, success: bool) -> list[float]:
    track = torch.zeros(3, 1, len(TRACK_NAMES))
    track[1:, 0, :2] = torch.tensor([x, y])
    return LABELLING.label(track, torch.tensor([2]), torch.tensor([success]))[0].tolist()


def test_modes_are_the_quarters() -> None:
    assert LABELLING.modes == DIRECTIONS == ("forward", "left", "back", "right")
    for index, (x, y) in enumerate(((0.9, 0.2), (-0.3, 0.9), (-0.9, -0.1), (0.1, -0.9))):
        for success in (True, False):
            assert _weigh(x, y, success) == [float(i == index) for i in range(4)]
    assert _weigh(0.1, 0.05, False) == [0.25] * 4


@pytest.mark.parametrize(
    ("key", "value"), [("goal_radius", 0.0), ("direction_weights", [1.0, 1.0]), ("expert_noise", 2), ("post", 1)]
)
def test_bad_settings_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"env.{key}"):
        load_options("Anymal", {key: value})
