"""How Kitchen is filmed: from the left, where the arm hides neither kettle nor light switch nor cabinet."""

from __future__ import annotations

from typing import Any

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.sim.render import Camera, MuJoCoFilming, Place
from bmd_pipeline.tasks.kitchen.env import load_model


def _find_data(task: VectorTask) -> Any:
    return task.simulation.scenes[0].data  # type: ignore[attr-defined]


def _locate_hand(task: VectorTask) -> Place:
    x, y, z = task.state[0, 9:12].tolist()  # type: ignore[attr-defined]
    return x, y, z


FILMING = MuJoCoFilming(
    load_model, Camera(eye=(-1.0, -1.0, 2.75), target=(-0.12, 0.5, 2.05), fov=0.85), _find_data, _locate_hand
)
