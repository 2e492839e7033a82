"""How Avoid is filmed: from before the robot, with the start on the left; steeply, to see each gap."""

from __future__ import annotations

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.arm import ROBOT_BASE
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place
from bmd_pipeline.tasks.avoid.layout import TIP_HEIGHT


def _locate_tip(task: VectorTask) -> Place:
    x, y = task.state[0].tolist()  # type: ignore[attr-defined]
    return x + ROBOT_BASE[0], y + ROBOT_BASE[1], TIP_HEIGHT


FILMING = ManiSkillFilming(
    "bmd_pipeline.tasks.avoid.maniskill",
    Camera(eye=(0.3, 0.04, 0.8), target=(-0.14, 0.04, 0.02), fov=0.85),
    _locate_tip,
)
