"""Direct stepping of a ManiSkill robot under a joint position controller.

Source: `PDJointPosController` of ManiSkill 3.0.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.errors import TaskError


class JointDrive:
    """Steps one single-environment ManiSkill scene by increments of its joint angles.

    Args:
        env: an unwrapped ManiSkill environment with `num_envs=1` on the CPU.
        part: name of its agent's controller, which must drive all joints, from their present angles, by normalised
            increments without interpolation.

    Raises:
        TaskError: the controller is of another kind.
    """

    def __init__(self, env: Any, part: str) -> None:
        controller = env.agent.controller.controllers[part]
        config = controller.config
        if "PDJointPosController" not in {base.__name__ for base in type(controller).__mro__}:
            raise TaskError(f"direct stepping needs a joint position controller, got {type(controller).__name__}")
        if config.interpolate or config.use_target or not (config.use_delta and config.normalize_action):
            raise TaskError("direct stepping needs normalised increments from the present angles, not interpolated")
        self._scale = np.float32(config.upper)  # single precision throughout, as ManiSkill: results are equal
        self._articulation = env.agent.robot._objs[0]
        self._drives = [joint._objs[0] for joint in controller.joints]
        self._scene = env.scene
        self._substeps = env._sim_steps_per_control
        if np.float32(config.lower) != -self._scale or len(self._drives) != len(self._articulation.qpos):
            raise TaskError("direct stepping needs symmetric increments of all joints")

    def place(self, qpos: NDArray[np.float64]) -> None:
        """Puts the joints, at rest, at angles (joints,) in rad."""
        self._articulation.set_qpos(qpos)
        self._articulation.set_qvel(np.zeros_like(qpos))
        self._articulation.set_qf(np.zeros_like(qpos))
        self._drive_to(qpos)

    def step(self, action: NDArray[np.float64]) -> None:
        """One control step with an action (joints,), clipped to [-1, 1]."""
        increment = self._scale * np.clip(action, -1.0, 1.0).astype(np.float32)
        self._drive_to(self._articulation.qpos + increment)
        physics = self._scene.px
        for _ in range(self._substeps):
            physics.step()

    def _drive_to(self, angles: NDArray[np.floating[Any]]) -> None:
        for drive, angle in zip(self._drives, angles.astype(np.float32), strict=True):
            drive.set_drive_target(angle)
