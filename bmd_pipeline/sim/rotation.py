"""Turning an end effector towards an orientation by ManiSkill's rotation actions.

One formula in two forms: numbers for scenes on the CPU, where a torch call costs as much as the physics, and tensors
for the GPU. A test holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GAIN = 1.6
"""Share of half the missing angle that one control step asks for."""


def turn_towards(wanted: Sequence[float], found: Sequence[float], rotation_scale: float) -> tuple[float, float, float]:
    """Rotation action that turns one quaternion into another.

    Args:
        wanted: (4,) quaternion (w, x, y, z).
        found: (4,) the present one.
        rotation_scale: radians of one unit of ManiSkill's rotation action.

    Returns:
        (3,) about the root's axes, each in [-1, 1].
    """
    uw, ux, uy, uz = wanted
    qw, qx, qy, qz = found
    gain = math.copysign(_GAIN, uw * qw + ux * qx + uy * qy + uz * qz) / rotation_scale
    # the rotation that is missing, wanted * conjugate(found); its vector part is half the rotation vector
    x = gain * (-uw * qx + ux * qw - uy * qz + uz * qy)
    y = gain * (-uw * qy + ux * qz + uy * qw - uz * qx)
    z = gain * (-uw * qz - ux * qy + uy * qx + uz * qw)
    return min(max(x, -1.0), 1.0), min(max(y, -1.0), 1.0), min(max(z, -1.0), 1.0)


def turn_all_towards(wanted: Sequence[float], found: Tensor, rotation_scale: float) -> Tensor:
    """`turn_towards` for quaternions found (num_envs, 4); returns (num_envs, 3)."""
    uw, ux, uy, uz = wanted
    qw, qx, qy, qz = found.unbind(1)
    sign = torch.where(uw * qw + ux * qx + uy * qy + uz * qz < 0, -1.0, 1.0)
    missing = torch.stack(
        (
            -uw * qx + ux * qw - uy * qz + uz * qy,
            -uw * qy + ux * qz + uy * qw - uz * qx,
            -uw * qz - ux * qy + uy * qx + uz * qw,
        ),
        1,
    )
    return (missing * (sign * _GAIN / rotation_scale)[:, None]).clamp(-1.0, 1.0)
