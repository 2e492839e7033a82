"""The base of this project's own ManiSkill environments: a robot at a table, started from rows of numbers.

Everything is batched tensors on the environment's device, so that a subclass runs in ManiSkill's GPU simulation as it
is. Subclasses are registered environments that any user of ManiSkill can make; the fast stepping on the CPU stands
beside them (`arm`, `gripper`), not in them. Importing this module imports ManiSkill.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.scene_builder.table import TableSceneBuilder
from torch import Tensor

from bmd_pipeline.sim.planar import ROBOT_BASE


class TabletopEnv(BaseEnv):  # type: ignore[misc]  # ManiSkill ships no types
    """A robot at ManiSkill's table.

    Subclasses name their robot and control mode, build what stands on the table, and give starts, success and reward
    as functions of the state. `reset(options={"start": ...})` starts the episodes of `env_idx` from given rows
    instead of drawing them.
    """

    SUPPORTED_REWARD_MODES = ["normalized_dense", "dense", "sparse", "none"]
    RANDOM_DIM: int
    """How many uniform random numbers an episode's start is made of."""

    # what a subclass says ----------------------------------------------------------------------------

    @abstractmethod
    def _load_objects(self) -> None:
        """Builds what stands on the table."""

    @abstractmethod
    def make_start(self, random: Tensor) -> Tensor:
        """Starts (n, start_dim) from numbers (n, RANDOM_DIM) that are uniform in [0, 1); joint angles come first."""

    @abstractmethod
    def _place_objects(self, placement: Tensor) -> None:
        """Places objects from what follows the joint angles in starts (n, start_dim - num_joints)."""

    @abstractmethod
    def read_state(self) -> Tensor:
        """The scenes' state (num_envs, state_dim)."""

    @abstractmethod
    def evaluate(self) -> dict[str, Tensor]:
        """Flags `success`, and `fail` where there is failing, each (num_envs,), and what else is worth knowing."""

    @abstractmethod
    def compute_closeness(self) -> Tensor:
        """How near each scene (num_envs,) is to success, from 0 to 1: the dense reward before success."""

    # what ManiSkill calls ----------------------------------------------------------------------------

    def _load_agent(self, options: dict[str, Any]) -> None:
        super()._load_agent(options, sapien.Pose(p=[*ROBOT_BASE, 0.0]))

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.table_scene = TableSceneBuilder(env=self)
        self.table_scene.build()
        self._load_objects()

    def _initialize_episode(self, env_idx: Tensor, options: dict[str, Any]) -> None:
        with torch.device(self.device):
            start = options.get("start")
            if start is None:
                start = self.make_start(torch.rand(len(env_idx), self.RANDOM_DIM))
            joints = self.agent.robot.max_dof
            self.table_scene.initialize(env_idx)
            self.agent.reset(start[:, :joints])
            self.agent.robot.set_pose(sapien.Pose(p=[*ROBOT_BASE, 0.0]))
            self._place_objects(start[:, joints:])

    def compute_dense_reward(self, obs: Any, action: Tensor, info: dict[str, Tensor]) -> Tensor:
        """Closeness to success, and 1 once there; (num_envs,)."""
        return torch.where(info["success"], 1.0, 0.9 * self.compute_closeness())

    def compute_normalized_dense_reward(self, obs: Any, action: Tensor, info: dict[str, Tensor]) -> Tensor:
        """The dense reward, which is in [0, 1] as it is."""
        return self.compute_dense_reward(obs, action, info)
