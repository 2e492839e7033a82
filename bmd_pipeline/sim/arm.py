"""Direct stepping of ManiSkill's arms and grippers, and what a policy's actions mean to their controllers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.errors import TaskError

# ---- Turning an end effector towards an orientation by ManiSkill's rotation actions ----
#
# One formula in two forms: numbers for scenes on the CPU, where a torch call costs as much as the physics, and tensors
# for the GPU. A test holds them together.

_ROTATION_GAIN = 1.6
"""Share of half the missing angle that one control step asks for."""


def turn_towards(wanted: Sequence[float], found: Sequence[float], rotation_scale: float) -> tuple[float, float, float]:
    """Rotation action that turns one quaternion into another.

    Args:
        wanted: (4,) quaternion (w, x, y, z).
        found: (4,) the present one.
        rotation_scale: radians of one unit of ManiSkill's rotation action.

    Returns:
        (3,) about the root's axes, each in [-1, 1].
    """
    uw, ux, uy, uz = wanted
    qw, qx, qy, qz = found
    gain = math.copysign(_ROTATION_GAIN, uw * qw + ux * qx + uy * qy + uz * qz) / rotation_scale
    # the rotation that is missing, wanted * conjugate(found); its vector part is half the rotation vector
    x = gain * (-uw * qx + ux * qw - uy * qz + uz * qy)
    y = gain * (-uw * qy + ux * qz + uy * qw - uz * qx)
    z = gain * (-uw * qz - ux * qy + uy * qx + uz * qw)
    return min(max(x, -1.0), 1.0), min(max(y, -1.0), 1.0), min(max(z, -1.0), 1.0)


def turn_all_towards(wanted: Sequence[float], found: Tensor, rotation_scale: float) -> Tensor:
    """`turn_towards` for quaternions found (num_envs, 4); returns (num_envs, 3)."""
    uw, ux, uy, uz = wanted
    qw, qx, qy, qz = found.unbind(1)
    sign = torch.where(uw * qw + ux * qx + uy * qy + uz * qz < 0, -1.0, 1.0)
    missing = torch.stack(
        (
            -uw * qx + ux * qw - uy * qz + uz * qy,
            -uw * qy + ux * qz + uy * qw - uz * qx,
            -uw * qz - ux * qy + uy * qx + uz * qw,
        ),
        1,
    )
    return (missing * (sign * _ROTATION_GAIN / rotation_scale)[:, None]).clamp(-1.0, 1.0)


# ---- The planar controller: what a policy's (dx, dy) means to ManiSkill's six-dimensional controller ----
#
# The stick stays upright and at a fixed height, whatever the policy does, and inside the ring round the base
# where the arm can hold it so. In two forms, as `rotation`: numbers for scenes on the CPU, tensors for the GPU.

ROBOT_BASE = (-0.615, 0.0)
"""Where ManiSkill's table scenes put the robot (x, y), in metres."""
STEP_METRES = 0.0393
"""How far the tip really goes in a control step at action 1 (measured; the commanded 0.1 m is not reached)."""
REACH = (0.3, 0.77)
"""Distances in metres from the robot's base between which the tip can be held upright: at 0.292 the elbow reaches
its limit, the inverse kinematics fails and the arm jams."""
UPRIGHT = (0.0, 0.9987, -0.0513, 0.0)
"""Orientation (w, x, y, z) with the stick straight down and the wrist turned as in the rest pose."""
_HEIGHT_GAIN = 0.6  # share of an error corrected in a step


def hold_tip(x: float, y: float, tip: Sequence[float], rotation_scale: float, height: float) -> NDArray[np.float64]:
    """Completes one planar action.

    Args:
        x: action along x in [-1, 1].
        y: action along y in [-1, 1].
        tip: (7,) pose of the tip, position in metres and quaternion (w, x, y, z).
        rotation_scale: radians of one unit of ManiSkill's rotation action.
        height: where to hold the tip, in metres.

    Returns:
        (6,) action of ManiSkill's `pd_ee_delta_pose` controller.
    """
    tip_x, tip_y, tip_z = tip[:3]
    base_x, base_y = ROBOT_BASE
    radius = math.hypot(tip_x - base_x, tip_y - base_y)
    out_x, out_y = (tip_x - base_x) / radius, (tip_y - base_y) / radius
    outwards = x * out_x + y * out_y
    allowed = min(max(outwards, (REACH[0] - radius) / STEP_METRES), (REACH[1] - radius) / STEP_METRES)
    x, y = x + (allowed - outwards) * out_x, y + (allowed - outwards) * out_y
    lift = _HEIGHT_GAIN * (height - tip_z) / STEP_METRES
    return np.array([x, y, lift, *turn_towards(UPRIGHT, tip[3:], rotation_scale)])


def hold_tips(action: Tensor, tip: Tensor, rotation_scale: float, height: float) -> Tensor:
    """`hold_tip` for action (num_envs, 2) and tip (num_envs, 7); returns (num_envs, 6)."""
    offset = tip[:, :2] - tip.new_tensor(ROBOT_BASE)
    radius = offset.norm(dim=1, keepdim=True)
    out = offset / radius
    outwards = (action * out).sum(1, keepdim=True)
    lowest, highest = ((limit - radius) / STEP_METRES for limit in REACH)
    planar = action + (torch.minimum(torch.maximum(outwards, lowest), highest) - outwards) * out
    turn = turn_all_towards(UPRIGHT, tip[:, 3:], rotation_scale)
    lift = _HEIGHT_GAIN * (height - tip[:, 2:3]) / STEP_METRES
    return torch.cat((planar, lift, turn), 1)


# ---- Direct stepping of a ManiSkill robot under a joint position controller ----
#
# Source: `PDJointPosController` of ManiSkill 3.0.1.


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


# ---- Direct stepping of a ManiSkill arm under an end-effector controller ----
#
# ManiSkill's `env.step` on the CPU spends most of its time in the torch wrapping around one robot's pose
# algebra. `PoseArm` does the same with the same SAPIEN objects: same target pose, same inverse kinematics,
# same drive targets, same number of physics steps, no tensors. ManiSkill still builds and owns the scene.
#
# Source: `PDEEPoseController` and `Kinematics` of ManiSkill 3.0.1.

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


# ---- Direct opening and closing of a ManiSkill gripper, beside `PoseArm` ----
#
# Source: `PDJointPosMimicController` of ManiSkill 3.0.1.


class Gripper:
    """Drives the fingers of one single-environment ManiSkill scene.

    Args:
        env: an unwrapped ManiSkill environment with `num_envs=1` on the CPU whose agent has a `gripper` controller
            of mirrored finger joints.
    """

    def __init__(self, env: Any) -> None:
        controller = env.agent.controller.controllers["gripper"]
        self._low, self._high = float(controller.config.lower), float(controller.config.upper)
        self._drives = [joint._objs[0] for joint in controller.joints]

    def command(self, action: float) -> None:
        """Sets the fingers' targets for the physics steps to come: -1 closed, 1 open."""
        share = (min(max(action, -1.0), 1.0) + 1.0) / 2.0
        target = np.float32(self._low + share * (self._high - self._low))
        for drive in self._drives:
            drive.set_drive_target(target)


# ---- Moving a ManiSkill end effector towards a pose, for demonstrators ----

ROTATION_SCALE = -0.1
"""Radians of one unit of rotation action under the Panda's `pd_ee_delta_pose`; negative, as in ManiSkill."""
_SERVO_GAIN = 0.6
"""Share of the distance that is covered in a control step where the speed allows."""


def point_down(yaw: float) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a hand that points down; at yaw 0 its fingers open along y."""
    return 0.0, math.cos(yaw / 2.0), math.sin(yaw / 2.0), 0.0


def approach(
    pose: Sequence[float], position: NDArray[np.float64], orientation: Sequence[float], speed: float
) -> NDArray[np.float64]:
    """Action that moves the end effector towards a pose.

    Args:
        pose: (7,) where it is: position in metres and quaternion (w, x, y, z).
        position: (3,) where it should go.
        orientation: (4,) quaternion that it should have there.
        speed: largest component of the translation, in units of action.

    Returns:
        (6,) action of `pd_ee_delta_pose`.
    """
    shift = _SERVO_GAIN * (position - np.array(pose[:3])) / STEP_METRES
    shift *= min(1.0, speed / max(float(np.abs(shift).max()), 1e-9))
    return np.array([*shift, *turn_towards(orientation, pose[3:], ROTATION_SCALE)])
