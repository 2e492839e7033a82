"""One ReachAroundPost-v1 scene on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import PoseArm
from bmd_pipeline.sim.backend import renew_physics


class ReachScene:
    """A ReachAroundPost-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._marker = self.env.goal._objs[0]
        self._goal: tuple[float, ...] = tuple(self._marker.pose.p.tolist())
        self._fingers = [joint._objs[0] for joint in self.env.agent.controller.controllers["gripper"].joints]

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (12,)."""
        renew_physics(self.env)
        self.arm.place(np.array(start[:9]))
        for finger in self._fingers:
            finger.set_drive_target(np.float32(0.0))
        self._goal = tuple(start[9:])
        self._marker.set_pose(self._pose(self._goal))

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (6,) in [-1, 1]."""
        self.arm.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        """The state (17,), see `layout`."""
        pose = self.arm.pose
        return (*self.arm.qpos[:7].tolist(), *pose.p.tolist(), *pose.q.tolist(), *self._goal)
