"""How Anymal is filmed: from behind and above, so that all four beacons are in the picture."""

from __future__ import annotations

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place


def _locate_base(task: VectorTask) -> Place:
    x, y, z = task.state[0, 24:27].tolist()  # type: ignore[attr-defined]
    return x, y, z


FILMING = ManiSkillFilming(
    "bmd_pipeline.tasks.anymal.maniskill",
    Camera(eye=(-2.6, 0.0, 2.4), target=(0.0, 0.0, 0.2), fov=0.75),
    _locate_base,
)
