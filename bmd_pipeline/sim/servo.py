"""Moving a ManiSkill end effector towards a pose, for demonstrators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.sim.planar import STEP_METRES
from bmd_pipeline.sim.rotation import turn_towards

ROTATION_SCALE = -0.1
"""Radians of one unit of rotation action under the Panda's `pd_ee_delta_pose`; negative, as in ManiSkill."""
_GAIN = 0.6
"""Share of the distance that is covered in a control step where the speed allows."""


def point_down(yaw: float) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a hand that points down; at yaw 0 its fingers open along y."""
    return 0.0, math.cos(yaw / 2.0), math.sin(yaw / 2.0), 0.0


def approach(
    pose: Sequence[float], position: NDArray[np.float64], orientation: Sequence[float], speed: float
) -> NDArray[np.float64]:
    """Action that moves the end effector towards a pose.

    Args:
        pose: (7,) where it is: position in metres and quaternion (w, x, y, z).
        position: (3,) where it should go.
        orientation: (4,) quaternion that it should have there.
        speed: largest component of the translation, in units of action.

    Returns:
        (6,) action of `pd_ee_delta_pose`.
    """
    shift = _GAIN * (position - np.array(pose[:3])) / STEP_METRES
    shift *= min(1.0, speed / max(float(np.abs(shift).max()), 1e-9))
    return np.array([*shift, *turn_towards(orientation, pose[3:], ROTATION_SCALE)])
