"""How Reach is filmed: from before the robot, so that the post's sides are the picture's."""

from __future__ import annotations

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place


def _locate_tip(task: VectorTask) -> Place:
    x, y, z = task.state[0, 7:10].tolist()  # type: ignore[attr-defined]
    return x, y, z


FILMING = ManiSkillFilming(
    "bmd_pipeline.tasks.reach.maniskill",
    Camera(eye=(0.56, 0.0, 0.7), target=(-0.12, 0.0, 0.2), fov=0.8),
    _locate_tip,
)
