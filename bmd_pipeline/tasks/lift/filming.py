"""How Lift is filmed: from the side, with the bar's near end on the robot's side of the picture."""

from __future__ import annotations

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place


def _locate_tip(task: VectorTask) -> Place:
    x, y, z = task.state[0, 9:12].tolist()  # type: ignore[attr-defined]
    return x, y, z


FILMING = ManiSkillFilming(
    "bmd_pipeline.tasks.lift.maniskill",
    Camera(eye=(0.1, -0.62, 0.38), target=(-0.04, 0.0, 0.12)),
    _locate_tip,
)
