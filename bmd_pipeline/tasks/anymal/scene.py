"""One AnymalBeacons-v1 scene on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import JointDrive
from bmd_pipeline.sim.backend import renew_physics
from bmd_pipeline.tasks.anymal import layout


class AnymalScene:
    """An AnymalBeacons-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        drive: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.drive = JointDrive(self.env, "body")
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._robot = self.env.agent.robot._objs[0]
        self._base = self._robot.root
        self._distance = layout.BEACON_DISTANCE

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (14,)."""
        renew_physics(self.env)
        *joints, heading, self._distance = start
        position, orientation = layout.make_base_pose(torch.tensor([heading]))
        self._robot.set_root_pose(self._pose(position[0].tolist(), orientation[0].tolist()))
        self._robot.set_root_linear_velocity(np.zeros(3, np.float32))
        self._robot.set_root_angular_velocity(np.zeros(3, np.float32))
        self.drive.place(np.array(joints))

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (12,) in [-1, 1]."""
        self.drive.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        """The state (38,), see `layout`."""
        pose, base = self._robot.root_pose, self._base
        parts = (self._robot.qpos, self._robot.qvel, pose.p, pose.q, base.linear_velocity, base.angular_velocity)
        return (*np.concatenate(parts).tolist(), self._distance)
