"""One LiftBar-v1 scene on the CPU."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import Gripper, PoseArm
from bmd_pipeline.sim.backend import renew_physics
from bmd_pipeline.tasks.lift import layout


class LiftScene:
    """A LiftBar-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)
        self._gripper = Gripper(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._bar = self.env.bar._objs[0]
        self._body = self._bar.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (12,)."""
        renew_physics(self.env)
        x, y, yaw = start[9:]
        self._bar.set_pose(self._pose([x, y, layout.HALF_HEIGHT], [math.cos(yaw / 2.0), 0, 0, math.sin(yaw / 2.0)]))
        self._body.set_linear_velocity([0.0, 0.0, 0.0])
        self._body.set_angular_velocity([0.0, 0.0, 0.0])
        self._body.put_to_sleep()
        self._body.wake_up()  # restarts the timer after which it would fall asleep
        self.arm.place(np.array(start[:9]))
        self._gripper.command(1.0)

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (7,) in [-1, 1]; the last one is the gripper's, 1 for open."""
        self._gripper.command(action[6])
        self.arm.step(np.array(action[:6]))

    def read(self) -> tuple[float, ...]:
        """The state (23,), see `layout`."""
        tip, bar = self.arm.pose, self._bar.pose
        return (*self.arm.qpos.tolist(), *tip.p.tolist(), *tip.q.tolist(), *bar.p.tolist(), *bar.q.tolist())
