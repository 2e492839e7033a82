"""Direct stepping of ManiSkill's robots on the CPU, and what a policy's actions mean to their controllers.

ManiSkill's `env.step` spends most of its time in the torch wrapping around one robot's pose algebra. The classes here
do the same with the same SAPIEN objects: same targets, same inverse kinematics, same number of physics steps, no
tensors. ManiSkill still builds and owns the scene.

Source: `PDJointPosController`, `PDJointPosMimicController`, `PDEEPoseController` and `Kinematics` of ManiSkill 3.0.1.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.backend import make_maniskill_env

# ---- Turning an end effector towards an orientation by ManiSkill's rotation actions ----
#
# One formula in two forms: numbers for scenes on the CPU, where a torch call costs as much as the physics, and tensors
# for the GPU. A test holds them together.

_ROTATION_GAIN = 1.6
"""Share of half the missing angle that one control step asks for."""


def _relative_rotation(wanted: Sequence[Any], found: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Quaternion (w, x, y, z) of wanted * conjugate(found), the missing rotation.

    For small angles (x, y, z) is half its rotation vector.
    """
    uw, ux, uy, uz = wanted
    qw, qx, qy, qz = found
    return (
        uw * qw + ux * qx + uy * qy + uz * qz,
        -uw * qx + ux * qw - uy * qz + uz * qy,
        -uw * qy + ux * qz + uy * qw - uz * qx,
        -uw * qz - ux * qy + uy * qx + uz * qw,
    )


def turn_towards(wanted: Sequence[float], found: Sequence[float], rotation_scale: float) -> tuple[float, float, float]:
    """Rotation action (3,) in [-1, 1], about the root's axes, that turns quaternion found (4,) into wanted (4,).

    Quaternions are (w, x, y, z); rotation_scale is the radians of one unit of ManiSkill's rotation action.
    """
    w, *missing = _relative_rotation(wanted, found)
    gain = math.copysign(_ROTATION_GAIN, w) / rotation_scale
    x, y, z = (min(max(gain * part, -1.0), 1.0) for part in missing)
    return x, y, z


def turn_all_towards(wanted: Sequence[float], found: Tensor, rotation_scale: float) -> Tensor:
    """`turn_towards` for quaternions found (num_envs, 4); returns (num_envs, 3)."""
    w, *missing = _relative_rotation(wanted, found.unbind(1))
    gain = torch.where(w < 0, -1.0, 1.0) * _ROTATION_GAIN / rotation_scale
    return (torch.stack(missing, 1) * gain[:, None]).clamp(-1.0, 1.0)


def make_quaternion(yaw: Tensor) -> Tensor:
    """Quaternions (n, 4) as (w, x, y, z) of turns about the vertical axis by yaw (n,) in rad."""
    half, zero = yaw / 2.0, torch.zeros_like(yaw)
    return torch.stack((half.cos(), zero, zero, half.sin()), 1)


# ---- The planar controller: what a policy's (dx, dy) means to ManiSkill's six-dimensional controller ----
#
# The stick stays upright and at a fixed height, whatever the policy does, and inside the ring round the base
# where the arm can hold it so. Numbers and tensors again.

ROBOT_BASE = (-0.615, 0.0)
"""Where ManiSkill's table scenes put the robot (x, y), in metres."""
STEP_METRES = 0.0393
"""How far the tip really goes in a control step at action 1 (measured; the commanded 0.1 m is not reached)."""
REACH = (0.3, 0.77)
"""Distances in metres from the robot's base between which the tip can be held upright: at 0.292 the elbow reaches
its limit, the inverse kinematics fails and the arm jams."""
UPRIGHT = (0.0, 0.9987, -0.0513, 0.0)
"""Orientation (w, x, y, z) with the stick straight down and the wrist turned as in the rest pose."""
_POSITION_GAIN = 0.6
"""Share of an error in position that a control step corrects."""


def hold_tip(x: float, y: float, tip: Sequence[float], rotation_scale: float, height: float) -> NDArray[np.float64]:
    """Completes a planar action (x, y) in [-1, 1] to one (6,) of ManiSkill's `pd_ee_delta_pose`.

    tip is its pose (7,), position in metres and quaternion (w, x, y, z), height where to hold it in metres; for
    rotation_scale see `turn_towards`.
    """
    offset_x, offset_y = tip[0] - ROBOT_BASE[0], tip[1] - ROBOT_BASE[1]
    radius = math.hypot(offset_x, offset_y)
    out_x, out_y = offset_x / radius, offset_y / radius
    outwards = x * out_x + y * out_y
    allowed = min(max(outwards, (REACH[0] - radius) / STEP_METRES), (REACH[1] - radius) / STEP_METRES)
    x, y = x + (allowed - outwards) * out_x, y + (allowed - outwards) * out_y
    lift = _POSITION_GAIN * (height - tip[2]) / STEP_METRES
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
    lift = _POSITION_GAIN * (height - tip[:, 2:3]) / STEP_METRES
    return torch.cat((planar, lift, turn), 1)


# ---- Direct stepping of a robot, by joint angles or by its end effector ----


class DirectRobot:
    """A robot of an unwrapped ManiSkill environment with `num_envs=1` on the CPU, driven without ManiSkill.

    `part` is the name of the controller among its agent's.
    """

    def __init__(self, env: Any, part: str) -> None:
        self._controller = env.agent.controller.controllers[part]
        self._articulation = env.agent.robot._objs[0]
        self._drives = [joint._objs[0] for joint in self._controller.joints]
        self._scene = env.scene
        self._substeps = env._sim_steps_per_control

    @property
    def qpos(self) -> NDArray[np.float32]:
        """(joints,) joint angles in rad."""
        qpos: NDArray[np.float32] = self._articulation.qpos
        return qpos

    def place(self, qpos: NDArray[np.float64]) -> None:
        """Puts the joints, at rest, at angles (joints,) in rad."""
        self._articulation.set_qpos(qpos)
        self._articulation.set_qvel(np.zeros_like(qpos))
        self._articulation.set_qf(np.zeros_like(qpos))
        self._drive_to(qpos)

    def _drive_to(self, angles: NDArray[np.floating[Any]]) -> None:
        """Sets drive targets (joints,) in rad; those after the controller's joints are the gripper's, and ignored."""
        for drive, angle in zip(self._drives, angles.astype(np.float32), strict=False):
            drive.set_drive_target(angle)

    def _step_physics(self) -> None:
        for _ in range(self._substeps):
            self._scene.px.step()


class JointDrive(DirectRobot):
    """Steps a robot by increments of all its joint angles; refuses controllers that it would step wrongly."""

    def __init__(self, env: Any, part: str) -> None:
        super().__init__(env, part)
        config = self._controller.config
        self._scale = np.float32(config.upper)  # single precision throughout, as ManiSkill: results are equal
        plain = config.use_delta and config.normalize_action and not (config.interpolate or config.use_target)
        if not plain or np.float32(config.lower) != -self._scale:
            raise TaskError("direct stepping needs symmetric, normalised increments from the present angles")

    def step(self, action: NDArray[np.float64]) -> None:
        """One control step with an action (joints,), clipped to [-1, 1]."""
        self._drive_to(self.qpos + self._scale * np.clip(action, -1.0, 1.0).astype(np.float32))
        self._step_physics()


class PoseArm(DirectRobot):
    """Steps an arm by delta poses of its end effector: by `pd_ee_delta_pose`, or a controller derived from it.

    Attributes:
        rotation_scale: radians of one unit of rotation action; ManiSkill's own is negative.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env, "arm")
        controller, config = self._controller, self._controller.config
        if "PDEEPoseController" not in {base.__name__ for base in type(controller).__mro__} or config.use_target:
            raise TaskError(f"direct stepping needs delta poses of the end effector, got {type(controller).__name__}")
        self._sapien: Any = importlib.import_module("sapien")
        self.rotation_scale = float(config.rot_lower)
        self._position_scale = float(config.pos_upper)
        kinematics = controller.kinematics
        self._model = kinematics.pmodel
        self._end_index = kinematics.end_link_idx
        self._mask = kinematics.qmask.cpu().numpy()
        self._model_joints = kinematics.pmodel_active_joint_indices.cpu().numpy()
        self._driven_joints = kinematics.pmodel_controlled_joint_indices.cpu().numpy()
        self._end_link = controller.ee_link._objs[0]
        self._to_root = self._articulation.root_pose.inv()

    @property
    def pose(self) -> Any:
        """Pose of the end effector in the world (`sapien.Pose`)."""
        return self._end_link.entity_pose

    def step(self, action: NDArray[np.float64]) -> None:
        """One control step with an action (6,): translation in [-1, 1], then rotation of norm <= 1."""
        previous = self._to_root * self._end_link.entity_pose
        shift = np.clip(action[:3], -1.0, 1.0) * self._position_scale
        rotation = self._sapien.Pose(q=self._delta_rotation(action[3:])) * self._sapien.Pose(q=previous.q)
        qpos = self._articulation.qpos
        angles, converged, _ = self._model.compute_inverse_kinematics(
            self._end_index,
            self._sapien.Pose(previous.p + shift, rotation.q),
            initial_qpos=qpos[self._model_joints],
            active_qmask=self._mask,
            max_iterations=100,  # as ManiSkill's Kinematics
        )
        self._drive_to(angles[self._driven_joints] if converged else qpos)
        self._step_physics()

    def step_planar(self, x: float, y: float, height: float) -> None:
        """One control step of the upright tip in the plane; see `hold_tip`."""
        pose = self.pose
        self.step(hold_tip(x, y, (*pose.p.tolist(), *pose.q.tolist()), self.rotation_scale, height))

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


class ArmScene:
    """Base of scenes with an arm: a ManiSkill environment `env` and the `PoseArm` `arm` that steps it.

    Arguments as in `make_maniskill_env`.
    """

    def __init__(self, env_id: str, **settings: Any) -> None:
        self.env = make_maniskill_env(env_id, **settings)
        self.arm = PoseArm(self.env)


class Gripper:
    """Drives the mirrored fingers of a scene beside `PoseArm`."""

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


class FreeBody:
    """An actor that nothing but physics moves, placed and read without tensors.

    It is one of a ManiSkill scene with `num_envs=1` on the CPU.
    """

    def __init__(self, actor: Any) -> None:
        sapien: Any = importlib.import_module("sapien")
        self._make_pose = sapien.Pose
        self._entity = actor._objs[0]
        self._body = self._entity.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)

    @property
    def pose(self) -> Any:
        """Pose in the world (`sapien.Pose`)."""
        return self._entity.pose

    def place(self, x: float, y: float, z: float, yaw: float) -> None:
        """Puts it, upright and at rest, at a place in metres, turned by yaw in rad."""
        self._entity.set_pose(self._make_pose([x, y, z], [math.cos(yaw / 2.0), 0.0, 0.0, math.sin(yaw / 2.0)]))
        self._body.set_linear_velocity([0.0, 0.0, 0.0])
        self._body.set_angular_velocity([0.0, 0.0, 0.0])
        self._body.put_to_sleep()
        self._body.wake_up()  # restarts the timer after which it would fall asleep


# ---- Moving a ManiSkill end effector towards a pose, for experts ----

ROTATION_SCALE = -0.1
"""Radians of one unit of rotation action under the Panda's `pd_ee_delta_pose`; negative, as in ManiSkill."""


def point_down(yaw: float) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a hand that points down; at yaw 0 its fingers open along y."""
    return 0.0, math.cos(yaw / 2.0), math.sin(yaw / 2.0), 0.0


def approach(
    pose: Sequence[float], position: NDArray[np.float64], orientation: Sequence[float], speed: float
) -> NDArray[np.float64]:
    """Action (6,) of `pd_ee_delta_pose` that moves the end effector from pose (7,) to a position and an orientation.

    Metres and quaternions (w, x, y, z); speed is the largest component of the translation, in units of action.
    """
    shift = _POSITION_GAIN * (position - np.array(pose[:3])) / STEP_METRES
    shift *= min(1.0, speed / max(float(np.abs(shift).max()), 1e-9))
    return np.array([*shift, *turn_towards(orientation, pose[3:], ROTATION_SCALE)])
