"""The planar controller: what a policy's (dx, dy) means to ManiSkill's six-dimensional controller.

The stick stays upright and at a fixed height, whatever the policy does, and inside the ring round the base
where the arm can hold it so. In two forms, as `rotation`: numbers for scenes on the CPU, tensors for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.sim.rotation import turn_all_towards, turn_towards

ROBOT_BASE = (-0.615, 0.0)
"""Where ManiSkill's table scenes put the robot (x, y), in metres."""
STEP_METRES = 0.0393
"""How far the tip really goes in a control step at action 1 (measured; the commanded 0.1 m is not reached)."""
REACH = (0.3, 0.77)
"""Distances in metres from the robot's base between which the tip can be held upright: at 0.292 the elbow reaches
its limit, the inverse kinematics fails and the arm jams."""
UPRIGHT = (0.0, 0.9987, -0.0513, 0.0)
"""Orientation (w, x, y, z) with the stick straight down and the wrist turned as in the rest pose."""
_HEIGHT_GAIN = 0.6  # share of an error corrected in a step


def hold_tip(x: float, y: float, tip: Sequence[float], rotation_scale: float, height: float) -> NDArray[np.float64]:
    """Completes one planar action.

    Args:
        x: action along x in [-1, 1].
        y: action along y in [-1, 1].
        tip: (7,) pose of the tip, position in metres and quaternion (w, x, y, z).
        rotation_scale: radians of one unit of ManiSkill's rotation action.
        height: where to hold the tip, in metres.

    Returns:
        (6,) action of ManiSkill's `pd_ee_delta_pose` controller.
    """
    tip_x, tip_y, tip_z = tip[:3]
    base_x, base_y = ROBOT_BASE
    radius = math.hypot(tip_x - base_x, tip_y - base_y)
    out_x, out_y = (tip_x - base_x) / radius, (tip_y - base_y) / radius
    outwards = x * out_x + y * out_y
    allowed = min(max(outwards, (REACH[0] - radius) / STEP_METRES), (REACH[1] - radius) / STEP_METRES)
    x, y = x + (allowed - outwards) * out_x, y + (allowed - outwards) * out_y
    lift = _HEIGHT_GAIN * (height - tip_z) / STEP_METRES
    return np.array([x, y, lift, *turn_towards(UPRIGHT, tip[3:], rotation_scale)])


def hold_tips(action: Tensor, tip: Tensor, rotation_scale: float, height: float) -> Tensor:
    """`hold_tip` for action (num_envs, 2) and tip (num_envs, 7); returns (num_envs, 6)."""
    offset = tip[:, :2] - tip.new_tensor(ROBOT_BASE)
    radius = offset.norm(dim=1, keepdim=True)
    out = offset / radius
    outwards = (action * out).sum(1, keepdim=True)
    lowest, highest = ((limit - radius) / STEP_METRES for limit in REACH)
    planar = action + (torch.minimum(torch.maximum(outwards, lowest), highest) - outwards) * out
    turn = turn_all_towards(UPRIGHT, tip[:, 3:], rotation_scale)
    lift = _HEIGHT_GAIN * (height - tip[:, 2:3]) / STEP_METRES
    return torch.cat((planar, lift, turn), 1)
