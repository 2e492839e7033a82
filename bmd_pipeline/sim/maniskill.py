"""This project's own ManiSkill environments: bases and controllers. Importing this module imports ManiSkill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sapien
import torch
from gymnasium import spaces
from mani_skill.agents.controllers import PDEEPoseControllerConfig, PDJointPosControllerConfig
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController
from mani_skill.agents.controllers.pd_joint_pos import PDJointPosController
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.utils.building import actors
from mani_skill.utils.scene_builder.table import TableSceneBuilder
from torch import Tensor

from bmd_pipeline.sim.arm import ROBOT_BASE, STEP_METRES, hold_tips

# ---- The base of this project's own ManiSkill environments: episodes that start from rows of numbers ----
#
# Everything is batched tensors on the environment's device, so that a subclass runs in ManiSkill's GPU simulation as
# it is. Subclasses are registered environments that any user of ManiSkill can make; `sim.arm` steps them faster on the
# CPU.


class StartedEnv(BaseEnv):  # type: ignore[misc]  # ManiSkill ships no types
    """An environment whose starts, success and reward are functions of rows of numbers.

    `reset(options={"start": ...})` starts the episodes of `env_idx` from given rows instead of drawing them. `evaluate`
    gives `success`, and `fail` if episodes can fail, each (num_envs,).
    """

    SUPPORTED_REWARD_MODES = ["normalized_dense", "dense", "sparse", "none"]
    RANDOM_DIM: int  # how many uniform random numbers an episode's start is made of
    CONTROL_MODE: str | None = None  # ManiSkill's name of the robot's controller; None for its first

    def __init__(self, *args: Any, **settings: Any) -> None:
        defaults = {"robot_uids": self.SUPPORTED_ROBOTS[0], "control_mode": self.CONTROL_MODE}
        super().__init__(*args, **defaults | settings)

    def _make_start(self, random: Tensor) -> Tensor:
        """Starts (n, start_dim) from numbers (n, RANDOM_DIM) that are uniform in [0, 1); joint angles come first."""
        raise NotImplementedError

    def _place(self, env_idx: Tensor, start: Tensor) -> None:
        """Places robot and objects of the scenes env_idx (n,) as starts (n, start_dim) say, at rest."""
        raise NotImplementedError

    def read_state(self) -> Tensor:
        """The scenes' state (num_envs, state_dim)."""
        raise NotImplementedError

    def compute_closeness(self) -> Tensor:
        """How near each scene (num_envs,) is to success, from 0 to 1: the dense reward before success."""
        raise NotImplementedError

    def _initialize_episode(self, env_idx: Tensor, options: dict[str, Any]) -> None:
        with torch.device(self.device):
            start = options.get("start")
            if start is None:
                start = self._make_start(torch.rand(len(env_idx), self.RANDOM_DIM))
            self._place(env_idx, start)

    def compute_dense_reward(self, obs: Any, action: Tensor, info: dict[str, Tensor]) -> Tensor:
        """Closeness to success, and 1 once there; (num_envs,)."""
        return torch.where(info["success"], 1.0, 0.9 * self.compute_closeness())

    compute_normalized_dense_reward = compute_dense_reward  # which is in [0, 1] as it is


# ---- Controllers with fewer actions than ManiSkill's own ----


class PlanarController(PDEEPoseController):  # type: ignore[misc]  # ManiSkill ships no types
    """Moves the end effector in a plane and holds its height and orientation."""

    config: PlanarControllerConfig

    def _clip_and_scale_action_space(self) -> None:
        super()._clip_and_scale_action_space()
        self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _preprocess_action(self, action: Tensor) -> Tensor:
        planar = action.clamp(-1.0, 1.0) * (self.config.step_metres / STEP_METRES)
        held = hold_tips(planar, self.ee_pose.raw_pose, self.config.rot_lower, self.config.height)
        scaled: Tensor = self._clip_and_scale_action(held)
        return scaled


@dataclass
class PlanarControllerConfig(PDEEPoseControllerConfig):  # type: ignore[misc]
    """`pd_ee_delta_pose` with a height in metres to hold, and the metres of a control step at action 1."""

    height: float = 0.0
    step_metres: float = STEP_METRES
    controller_cls = PlanarController


class ShutController(PDJointPosController):  # type: ignore[misc]
    """Holds gripper joints at zero, where the fingers touch; takes no action."""

    def _initialize_action_space(self) -> None:
        self.single_action_space = spaces.Box(-1.0, 1.0, (0,), np.float32)

    def set_action(self, action: Tensor) -> None:
        """Ignores the action (num_envs, 0)."""
        self.set_drive_targets(torch.zeros_like(self.qpos))


@dataclass
class ShutControllerConfig(PDJointPosControllerConfig):  # type: ignore[misc]
    normalize_action: bool = False
    controller_cls = ShutController


def build_goal(scene: Any, name: str, radius: float, place: Sequence[float]) -> Any:
    """A green sphere at a place (x, y, z), which bodies pass through. Lengths are in metres."""
    return actors.build_sphere(
        scene,
        radius=radius,
        color=[0.0, 1.0, 0.0, 1.0],
        name=name,
        body_type="kinematic",
        add_collision=False,
        initial_pose=sapien.Pose(p=place),
    )


# ---- The base of this project's own ManiSkill environments with an arm: a robot at ManiSkill's table ----


class TabletopEnv(StartedEnv):
    """A robot at ManiSkill's table."""

    def _load_objects(self) -> None:
        """Builds what stands on the table."""
        raise NotImplementedError

    def _place_objects(self, placement: Tensor) -> None:
        """Places objects, if any move, from what follows the joint angles in starts (n, start_dim - num_joints)."""

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
