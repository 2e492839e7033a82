"""Direct stepping of a ManiSkill arm under an end-effector controller.

ManiSkill's `env.step` on the CPU spends most of its time in the torch wrapping around one robot's pose
algebra. `PoseArm` does the same with the same SAPIEN objects: same target pose, same inverse kinematics,
same drive targets, same number of physics steps, no tensors. ManiSkill still builds and owns the scene.

Source: `PDEEPoseController` and `Kinematics` of ManiSkill 3.0.1.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.errors import TaskError

_FRAMES = ("root_translation", "root_translation:root_aligned_body_rotation")
_IK_ITERATIONS = 100  # as ManiSkill's Kinematics


class PoseArm:
    """Steps one single-environment ManiSkill scene by delta poses of its end effector.

    Args:
        env: an unwrapped ManiSkill environment with `num_envs=1` on the CPU whose agent has an `arm`
            controller of type `pd_ee_delta_pos`, `pd_ee_delta_pose`, their `target` variants, or one derived
            from these.

    Attributes:
        action_dim: 3 (translation) or 6 (translation and rotation).
        rotation_scale: radians of one unit of rotation action; ManiSkill's own is negative.

    Raises:
        TaskError: the controller is of another kind.
    """

    def __init__(self, env: Any) -> None:
        controller = env.agent.controller.controllers["arm"]
        config = controller.config
        kind = type(controller).__name__
        kinds = {base.__name__ for base in type(controller).__mro__}
        if "PDEEPosController" not in kinds:
            raise TaskError(f"direct stepping needs an end-effector controller, got {kind}")
        if config.interpolate or not config.use_delta or config.frame not in _FRAMES:
            raise TaskError(f"direct stepping needs delta actions without interpolation in the root's frame: {kind}")
        self._sapien: Any = importlib.import_module("sapien")
        self._turns = "PDEEPoseController" in kinds
        self.action_dim = 6 if self._turns else 3
        self.rotation_scale = float(config.rot_lower) if self._turns else 0.0
        self._position_scale = float(config.pos_upper)
        self._from_target = bool(config.use_target)
        self._articulation = env.agent.robot._objs[0]
        kinematics = controller.kinematics
        self._model = kinematics.pmodel
        self._end_index = kinematics.end_link_idx
        self._mask = kinematics.qmask.cpu().numpy()
        self._model_joints = kinematics.pmodel_active_joint_indices.cpu().numpy()
        self._driven_joints = kinematics.pmodel_controlled_joint_indices.cpu().numpy()
        self._drives = [joint._objs[0] for joint in controller.joints]
        self._end_link = controller.ee_link._objs[0]
        self._scene = env.scene
        self._substeps = env._sim_steps_per_control
        self.sync()

    @property
    def pose(self) -> Any:
        """Pose of the end effector in the world (`sapien.Pose`)."""
        return self._end_link.entity_pose

    @property
    def qpos(self) -> NDArray[np.float32]:
        """(joints,) joint angles in rad."""
        qpos: NDArray[np.float32] = self._articulation.qpos
        return qpos

    @property
    def qvel(self) -> NDArray[np.float32]:
        """(joints,) joint velocities in rad/s."""
        qvel: NDArray[np.float32] = self._articulation.qvel
        return qvel

    def place(self, qpos: NDArray[np.float64]) -> None:
        """Puts the arm, at rest, at joint angles (joints,) in rad."""
        self._articulation.set_qpos(qpos)
        self._articulation.set_qvel(np.zeros_like(qpos))
        self._articulation.set_qf(np.zeros_like(qpos))
        for drive, angle in zip(self._drives, qpos, strict=False):
            drive.set_drive_target(np.float32(angle))
        self.sync()

    def sync(self) -> None:
        """Takes the current pose as the controller's; call it after the scene was reset or changed by hand."""
        self._physics = self._scene.px
        self._to_root = self._articulation.root_pose.inv()
        self._target = self._to_root * self._end_link.entity_pose

    def step(self, action: NDArray[np.float64]) -> None:
        """One control step.

        Args:
            action: (action_dim,) in ManiSkill's units: translation in [-1, 1], then rotation of norm <= 1.
        """
        previous = self._target if self._from_target else self._to_root * self._end_link.entity_pose
        shift = np.clip(action[:3], -1.0, 1.0) * self._position_scale
        rotation = previous.q
        if self._turns:
            rotation = (self._sapien.Pose(q=self._delta_rotation(action[3:6])) * self._sapien.Pose(q=rotation)).q
        self._target = self._sapien.Pose(previous.p + shift, rotation)
        qpos = self._articulation.qpos
        angles, converged, _ = self._model.compute_inverse_kinematics(
            self._end_index,
            self._target,
            initial_qpos=qpos[self._model_joints],
            active_qmask=self._mask,
            max_iterations=_IK_ITERATIONS,
        )
        angles = angles[self._driven_joints] if converged else qpos[: len(self._drives)]
        for drive, angle in zip(self._drives, angles, strict=True):
            drive.set_drive_target(np.float32(angle))
        self.settle(self._substeps)

    def settle(self, substeps: int) -> None:
        """Advances the physics by `substeps` simulation steps under the present drive targets."""
        for _ in range(substeps):
            self._physics.step()

    def _delta_rotation(self, action: NDArray[np.float64]) -> list[float]:
        """Quaternion (w, x, y, z) of Rx·Ry·Rz for a rotation action (3,), clipped by its norm as in ManiSkill."""
        x, y, z = (float(component) for component in action)
        scale = self.rotation_scale / max(math.sqrt(x * x + y * y + z * z), 1.0) / 2.0
        cx, cy, cz = math.cos(x * scale), math.cos(y * scale), math.cos(z * scale)
        sx, sy, sz = math.sin(x * scale), math.sin(y * scale), math.sin(z * scale)
        return [
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ]
