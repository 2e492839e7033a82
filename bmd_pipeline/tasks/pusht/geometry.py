"""The T, its goal and rigid motions of the plane.

A planar pose is (x, y, yaw) in metres and radians. The T's own frame has its origin in the centre of mass,
the bar along x and the stem along +y. Its outline's corners are numbered counter-clockwise from the bar's
lower left; face i runs from corner i to corner i + 1:

```
            5---4
            | 4 |          faces 1, 2, 3: the T's right (x > 0)
          5 |   | 3        faces 5, 6, 7: the T's left (x < 0)
       7----6   3----2
     7 |   6     2   | 1   y
       0-------------1     |
              0            +-- x
```

Source: the dimensions in ManiSkill's PushT-v1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.sim.arm import ROBOT_BASE

Array = NDArray[np.float64]

GOAL: Array = np.array([-0.156, -0.1, 5.0 / 3.0 * np.pi - 2.0 * np.pi])
"""Goal pose of the T (x, y, yaw)."""
ARM_BASE: Array = np.array(ROBOT_BASE)
"""Where the arm stands (x, y)."""
TIP_HEIGHT = 0.014
"""Height in metres at which the tip is held: above the table, well below the T's upper face."""
START_HEIGHT = 0.021
"""Height in metres of the T's centre where episodes start: half its thickness and a millimetre to fall, as in
ManiSkill."""
STICK_RADIUS = 0.008
RADIAN_METRES = 0.075
"""Metres that one radian counts for in the distance of two poses: about the T's radius of gyration."""

_MASS_CENTRE = 0.0375
CORNERS: Array = np.array(
    [
        [-0.1, -0.025],
        [0.1, -0.025],
        [0.1, 0.025],
        [0.025, 0.025],
        [0.025, 0.175],
        [-0.025, 0.175],
        [-0.025, 0.025],
        [-0.1, 0.025],
    ]
) - [0.0, _MASS_CENTRE]
_BOXES: Array = np.array([[-0.1, -0.025, 0.1, 0.025], [-0.025, 0.025, 0.025, 0.175]]) - [
    0.0,
    _MASS_CENTRE,
    0.0,
    _MASS_CENTRE,
]
SIDE_FACES: dict[str, tuple[int, ...]] = {"left": (5, 6, 7), "right": (1, 2, 3)}
"""Faces that count as each side of the T."""
TURNS: dict[str, int] = {"clockwise": -1, "counterclockwise": 1}
"""Sign of the T's rotation in each direction of turning."""
BEHAVIOURS: tuple[str, ...] = tuple(f"{turn}-{side}" for turn in TURNS for side in SIDE_FACES)
"""Ways of solving the task: direction of turning, and side of the T that is touched first."""


def wrap(angle: Array) -> Array:
    """Angles in rad brought to [-π, π)."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


def rotation(yaw: Array | float) -> Array:
    """Rotation matrices (..., 2, 2) of yaw (...,)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def compose(pose: Array, motion: Array) -> Array:
    """Poses (..., 3) after a motion (..., 3) given in their own frame; yaw stays unwrapped."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = pose[..., 0] + cos * motion[..., 0] - sin * motion[..., 1]
    y = pose[..., 1] + sin * motion[..., 0] + cos * motion[..., 1]
    return np.stack([x, y, pose[..., 2] + motion[..., 2]], -1)


def pose_distance(pose: Array, goal: Array) -> Array:
    """Distance in metres of poses (..., 3), with radians weighed by RADIAN_METRES and not wrapped."""
    shift = pose[..., :2] - goal[..., :2]
    turn = RADIAN_METRES * (pose[..., 2] - goal[..., 2])
    distance: Array = np.sqrt(shift[..., 0] ** 2 + shift[..., 1] ** 2 + turn**2)
    return distance


def distance_to_tee(points: Array) -> Array:
    """Distance (...,) in metres of points (..., 2) in the T's frame to the T; 0 inside."""
    gaps = [np.maximum(np.maximum(box[:2] - points, points - box[2:]), 0.0) for box in _BOXES]
    nearest: Array = np.minimum(*(np.sqrt(gap[..., 0] ** 2 + gap[..., 1] ** 2) for gap in gaps))
    return nearest
