"""The state of PushT scenes as numbers, and what the policy sees of it.

The state of a scene is a row of `STATE_NAMES` in metres and radians; the T's yaw is unwrapped, so that the
rotation since the start can be read off. Everything here is a pure function of tensors on any device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bmd_pipeline.tasks.pusht.geometry import GOAL, RADIAN_METRES

STATE_NAMES = ("tip_x", "tip_y", "tip_z", "tee_x", "tee_y", "tee_yaw")
STATE_DIM = len(STATE_NAMES)
OBS_DIM = 8
TRACK_NAMES = ("tip_x", "tip_y", "tee_x", "tee_y", "turn", "tee_yaw", "goal_distance")

_GOAL_X, _GOAL_Y, _GOAL_YAW = (float(value) for value in GOAL)
_TIP_METRES, _TEE_METRES = 0.15, 0.1  # divisors that bring features to order one
_TYPICAL_DISTANCE = 0.25  # metres between a start pose, half a turn off, and the goal


def wrap(angle: Tensor) -> Tensor:
    """Angles in rad brought to [-π, π)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi


def compute_obs(state: Tensor) -> Tensor:
    """What the policy sees.

    Args:
        state: (num_envs, STATE_DIM).

    Returns:
        (num_envs, OBS_DIM) of order one: tip and T relative to the goal's position, cosine and sine of the
        T's yaw error, and the tip in the T's frame, where contacts look alike whatever the pose.
    """
    tip_x, tip_y, _, tee_x, tee_y, yaw = state.unbind(1)
    error = yaw - _GOAL_YAW
    cos, sin = yaw.cos(), yaw.sin()
    x, y = tip_x - tee_x, tip_y - tee_y
    features = (
        (tip_x - _GOAL_X) / _TIP_METRES,
        (tip_y - _GOAL_Y) / _TIP_METRES,
        (tee_x - _GOAL_X) / _TEE_METRES,
        (tee_y - _GOAL_Y) / _TEE_METRES,
        error.cos(),
        error.sin(),
        (cos * x + sin * y) / _TEE_METRES,
        (cos * y - sin * x) / _TEE_METRES,
    )
    return torch.stack(features, 1)


def compute_track(state: Tensor, start_yaw: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES)); start_yaw is (num_envs,) in rad."""
    tip_x, tip_y, _, tee_x, tee_y, yaw = state.unbind(1)
    distance = torch.hypot(tee_x - _GOAL_X, tee_y - _GOAL_Y)
    return torch.stack((tip_x, tip_y, tee_x, tee_y, yaw - start_yaw, yaw, distance), 1)


def compute_closeness(state: Tensor) -> Tensor:
    """Minus the T's distance to the goal pose (num_envs,), in units of a typical start's distance."""
    turn = RADIAN_METRES * wrap(state[:, 5] - _GOAL_YAW)
    square = (state[:, 3] - _GOAL_X) ** 2 + (state[:, 4] - _GOAL_Y) ** 2 + turn**2
    return -square.sqrt() / _TYPICAL_DISTANCE
