"""Where the course stands on ManiSkill's table, and how the stick moves over it.

The course's origin is where the robot stands, as in D3IL. Starts are rows of joint angles, states rows of
(x, y) of the tip, on the course and in metres.
"""

from __future__ import annotations

from torch import Tensor

from bmd_pipeline.sim.arm import ROBOT_BASE

STATE_DIM = 2
RANDOM_DIM = 7
TIP_HEIGHT = 0.03
"""Height in metres at which the tip is held: the posts are 0.1 tall."""
BODY_RADIUS = 0.01
"""The tip's centre keeps this distance to posts: the stick's radius and 2 mm."""
POST_HEIGHT = 0.1
STEP_METRES = 0.012
"""Metres that the tip covers in a control step along each axis at action 1."""
REST_QPOS = (-0.3547, 0.5293, -0.1327, -2.0436, 0.123, 2.5656, 0.3153)
"""Joint angles in rad with the tip upright at the course's start."""
_QPOS_SPREAD = 0.02


def make_start(random: Tensor) -> Tensor:
    """Joint angles (n, 7) in rad from uniform numbers (n, RANDOM_DIM); the tip starts within about 2 cm."""
    return random.new_tensor(REST_QPOS) + _QPOS_SPREAD * (2.0 * random - 1.0)


def to_course(tip: Tensor) -> Tensor:
    """Positions (..., 2) on the course of tips (..., 2 or more) in the world."""
    return tip[..., :2] - tip.new_tensor(ROBOT_BASE)
