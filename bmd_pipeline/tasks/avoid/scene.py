"""One Avoid-v1 scene on the CPU, moved by planar actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import ROBOT_BASE, STEP_METRES, PoseArm, hold_tip
from bmd_pipeline.sim.backend import renew_physics
from bmd_pipeline.tasks.avoid import layout

_SCALE = layout.STEP_METRES / STEP_METRES


class AvoidScene:
    """An Avoid-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest, at joint angles (7,); nothing of the past remains."""
        renew_physics(self.env)
        self.arm.place(np.array(start))

    def move(self, action: Sequence[float]) -> None:
        """One control step with a planar action (2,) in [-1, 1]."""
        pose = self.arm.pose
        tip = (*pose.p.tolist(), *pose.q.tolist())
        x, y = action
        self.arm.step(hold_tip(_SCALE * x, _SCALE * y, tip, self.arm.rotation_scale, layout.TIP_HEIGHT))

    def read(self) -> tuple[float, float]:
        """(x, y) of the tip on the course."""
        x, y, _ = self.arm.pose.p.tolist()
        return x - ROBOT_BASE[0], y - ROBOT_BASE[1]
