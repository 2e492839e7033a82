"""The base of this project's own ManiSkill environments with an arm: a robot at ManiSkill's table.

Importing this module imports ManiSkill.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import sapien
from mani_skill.utils.scene_builder.table import TableSceneBuilder
from torch import Tensor

from bmd_pipeline.sim.planar import ROBOT_BASE
from bmd_pipeline.sim.started import StartedEnv


class TabletopEnv(StartedEnv):
    """A robot at ManiSkill's table.

    Subclasses name their robot and control mode, build what stands on the table, and give starts, success and reward
    as functions of the state.
    """

    @abstractmethod
    def _load_objects(self) -> None:
        """Builds what stands on the table."""

    @abstractmethod
    def _place_objects(self, placement: Tensor) -> None:
        """Places objects from what follows the joint angles in starts (n, start_dim - num_joints)."""

    def _load_agent(self, options: dict[str, Any]) -> None:
        super()._load_agent(options, sapien.Pose(p=[*ROBOT_BASE, 0.0]))

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.table_scene = TableSceneBuilder(env=self)
        self.table_scene.build()
        self._load_objects()

    def _place(self, env_idx: Tensor, start: Tensor) -> None:
        joints = self.agent.robot.max_dof
        self.table_scene.initialize(env_idx)
        self.agent.reset(start[:, :joints])
        self.agent.robot.set_pose(sapien.Pose(p=[*ROBOT_BASE, 0.0]))
        self._place_objects(start[:, joints:])
