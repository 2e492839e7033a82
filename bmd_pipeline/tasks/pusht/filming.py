"""How PushT is filmed: from above the table's far edge, so that turns are seen as turns."""

from __future__ import annotations

import math

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place
from bmd_pipeline.tasks.pusht.env import CONTROL_MODE, skip_recolouring
from bmd_pipeline.tasks.pusht.geometry import CORNERS, START_HEIGHT

_STEM = float(CORNERS[:, 1].max())


def _locate_stem(task: VectorTask) -> Place:
    """The end of the T's stem, whose path turns with the T."""
    x, y, yaw = task.state[0, 3:].tolist()  # type: ignore[attr-defined]
    return x - _STEM * math.sin(yaw), y + _STEM * math.cos(yaw), 2.0 * START_HEIGHT


FILMING = ManiSkillFilming(
    "bmd_pipeline.tasks.pusht.env",
    Camera(eye=(0.3, -0.06, 0.8), target=(-0.16, -0.06, 0.03), fov=0.75),
    _locate_stem,
    settings={"control_mode": CONTROL_MODE},
    prepare=skip_recolouring,
)
