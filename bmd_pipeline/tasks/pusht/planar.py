"""The planar controller: what a policy's (dx, dy) means to ManiSkill's six-dimensional controller.

The stick stays upright and at a fixed height, whatever the policy does, and inside the ring round the base
where the arm can hold it so. One formula in two forms: numbers for the scenes on the CPU, where a torch call
costs as much as the physics, and tensors for the GPU. A test holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.tasks.pusht.geometry import ARM_BASE, Array

STEP_METRES = 0.0393
"""How far the tip really goes in a control step at action 1 (measured; the commanded 0.1 m is not reached)."""
TIP_HEIGHT = 0.014
"""Height in metres at which the tip is held: above the table, well below the T's upper face."""
REACH = (0.3, 0.77)
"""Distances in metres from the arm's base between which the tip can be held upright: at 0.292 the elbow reaches
its limit, the inverse kinematics fails and the arm jams."""
UPRIGHT = (0.0, 0.9987, -0.0513, 0.0)
"""Orientation (w, x, y, z) with the stick straight down and the wrist turned as in the rest pose."""
_HEIGHT_GAIN, _ROTATION_GAIN = (
    0.6,
    1.6,
)  # share of an error (rotations: of half the angle) corrected in a step
_BASE_X, _BASE_Y = (float(value) for value in ARM_BASE)


def hold_tip(x: float, y: float, tip: Sequence[float], rotation_scale: float) -> Array:
    """Completes one planar action.

    Args:
        x: action along x in [-1, 1].
        y: action along y in [-1, 1].
        tip: (7,) pose of the tip, position in metres and quaternion (w, x, y, z).
        rotation_scale: radians of one unit of ManiSkill's rotation action.

    Returns:
        (6,) action of ManiSkill's `pd_ee_delta_pose` controller.
    """
    tip_x, tip_y, tip_z, qw, qx, qy, qz = tip
    radius = math.hypot(tip_x - _BASE_X, tip_y - _BASE_Y)
    out_x, out_y = (tip_x - _BASE_X) / radius, (tip_y - _BASE_Y) / radius
    outwards = x * out_x + y * out_y
    allowed = min(max(outwards, (REACH[0] - radius) / STEP_METRES), (REACH[1] - radius) / STEP_METRES)
    x, y = x + (allowed - outwards) * out_x, y + (allowed - outwards) * out_y
    # the rotation that is missing, UPRIGHT * conjugate(q); its vector part is half the rotation vector
    uw, ux, uy, uz = UPRIGHT
    gain = math.copysign(_ROTATION_GAIN, uw * qw + ux * qx + uy * qy + uz * qz) / rotation_scale
    missing = (
        -uw * qx + ux * qw - uy * qz + uz * qy,
        -uw * qy + ux * qz + uy * qw - uz * qx,
        -uw * qz - ux * qy + uy * qx + uz * qw,
    )
    lift = _HEIGHT_GAIN * (TIP_HEIGHT - tip_z) / STEP_METRES
    return np.array([x, y, lift, *(min(max(gain * part, -1.0), 1.0) for part in missing)])


def hold_tips(action: Tensor, tip: Tensor, rotation_scale: float) -> Tensor:
    """`hold_tip` for action (num_envs, 2) and tip (num_envs, 7); returns (num_envs, 6)."""
    offset = tip[:, :2] - tip.new_tensor([_BASE_X, _BASE_Y])
    radius = offset.norm(dim=1, keepdim=True)
    out = offset / radius
    outwards = (action * out).sum(1, keepdim=True)
    lowest, highest = ((limit - radius) / STEP_METRES for limit in REACH)
    planar = action + (torch.minimum(torch.maximum(outwards, lowest), highest) - outwards) * out
    uw, ux, uy, uz = UPRIGHT
    qw, qx, qy, qz = tip[:, 3:].unbind(1)
    sign = torch.where(uw * qw + ux * qx + uy * qy + uz * qz < 0, -1.0, 1.0)
    missing = torch.stack(
        (
            -uw * qx + ux * qw - uy * qz + uz * qy,
            -uw * qy + ux * qz + uy * qw - uz * qx,
            -uw * qz - ux * qy + uy * qx + uz * qw,
        ),
        1,
    )
    turn = (missing * (sign * _ROTATION_GAIN / rotation_scale)[:, None]).clamp(-1.0, 1.0)
    lift = _HEIGHT_GAIN * (TIP_HEIGHT - tip[:, 2:3]) / STEP_METRES
    return torch.cat((planar, lift, turn), 1)
