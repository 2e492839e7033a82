"""ManiSkill controllers that leave a policy less to do than its own. Importing this module imports ManiSkill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from mani_skill.agents.controllers import PDEEPoseControllerConfig, PDJointPosControllerConfig
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController
from mani_skill.agents.controllers.pd_joint_pos import PDJointPosController
from torch import Tensor

from bmd_pipeline.sim.planar import STEP_METRES, hold_tips


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
    """Drive settings of the joints to hold."""

    normalize_action: bool = False
    controller_cls = ShutController
