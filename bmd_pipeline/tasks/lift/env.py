"""Lift: a bar and what a state of it means, one LiftBar-v1 scene on the CPU, and the task as a batch of episodes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.sim.arm import ArmScene, FreeBody, Gripper
from bmd_pipeline.sim.backend import SceneTask, reset_physics
from bmd_pipeline.sim.render import Camera, ManiSkillFilming
from bmd_pipeline.tasks.lift.options import Options

# ---- The bar, where it starts, and what a state of the task means. Metres and radians ----
#
#         ________           The bar from above, in its own frame: x runs along it, away from the robot. The body is
#    ____|        |____      wider than the gripper opens; a handle sticks out at either end.
#   |near  body    far |     Its frame's origin is its middle.
#    ‾‾‾‾|        |‾‾‾‾
#         ‾‾‾‾‾‾‾‾
#
# Starts are rows of joint angles (9: arm and fingers) and the bar's place (x, y, yaw); states are rows of joint angles
# (9), pose of the fingertips (position 3, quaternion 4 as (w, x, y, z)) and pose of the bar (the same). Everything is a
# function of tensors on any device.

TRACK_NAMES = ("along", "z", "bar_z", "x", "y")
ENDS = ("near", "far")

HALF_LENGTH = 0.12
HANDLE_HALF_WIDTH, BODY_HALF_WIDTH = 0.015, 0.05
BODY_HALF_LENGTH = 0.045
HALF_HEIGHT = 0.02
DENSITY = 400.0
"""Kilograms per cubic metre; the bar weighs 0.25 kg."""
GRASP_AT = 0.085
"""Distance from the bar's middle at which a handle is best grasped."""
BAR_MIDDLE, BAR_SPREAD = (-0.02, 0.0), 0.04
"""The bar starts within the spread about this place (x, y)."""
REST_QPOS = (0.0, 0.3925, 0.0, -1.9635, 0.0, 2.356, 0.7854, 0.04, 0.04)
"""ManiSkill's rest pose of the Panda: fingertips at (0, 0, 0.17), open and pointing down."""
_QPOS_SPREAD = 0.03
_APPROACH, _LIFTING = 0.4, 0.6  # shares of the two phases in closeness
_NEARBY = 0.2  # metres from a handle at which coming nearer begins to count


def make_start(random: Tensor, yaw_range_deg: float) -> Tensor:
    """Starts (n, 12) from uniform numbers (n, 10)."""
    centred = 2.0 * random - 1.0
    arm = random.new_tensor(REST_QPOS[:7]) + _QPOS_SPREAD * centred[:, :7]
    fingers = random.new_tensor(REST_QPOS[7:]).expand(len(random), 2)
    place = random.new_tensor(BAR_MIDDLE) + BAR_SPREAD * centred[:, 7:9]
    return torch.cat((arm, fingers, place, math.radians(yaw_range_deg) * centred[:, 9:]), 1)


def rotate_back(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Vectors (n, 3) of the world in frames turned by unit quaternions (n, 4)."""
    real, imaginary = quaternion[:, :1], -quaternion[:, 1:]
    across = 2.0 * torch.linalg.cross(imaginary, vector)
    turned: Tensor = vector + real * across + torch.linalg.cross(imaginary, across)
    return turned


def locate_tip(state: Tensor) -> Tensor:
    """Fingertips in the bar's frame, (num_envs, 3)."""
    _, tip, _, bar, turned = torch.split(state, [9, 3, 4, 3, 4], dim=1)
    return rotate_back(turned, tip - bar)


OBS_NAMES = (
    *(f"joint {joint} from rest (rad)" for joint in range(1, 8)),
    "opening of the gripper (0.04 m)",
    *(f"fingertips {axis} (0.1 m)" for axis in "xyz"),
    *(f"fingertips' orientation, {part} of the quaternion" for part in "wxyz"),
    *(f"bar {axis} (0.1 m)" for axis in "xyz"),
    *(f"bar's direction, {axis}" for axis in "xyz"),
    *(f"fingertips {axis} in the bar's frame (0.1 m)" for axis in "xyz"),
)


def compute_obs(state: Tensor) -> Tensor:
    """What the policy sees of states (num_envs, 23): (num_envs, 24) of order one.

    Arm joints from their rest, opening of the gripper, fingertips, their orientation (of the two equal quaternions, the
    one with the positive x component), bar, direction in which it points, fingertips in its frame.
    """
    joints, fingers, tip, quaternion, bar, turned = torch.split(state, [7, 2, 3, 4, 3, 4], dim=1)
    posture, opening = joints - state.new_tensor(REST_QPOS[:7]), fingers.mean(1, keepdim=True) / 0.04
    quaternion = torch.where(quaternion[:, 1:2] < 0, -quaternion, quaternion)
    w, x, y, z = turned.unbind(1)
    pointing = torch.stack((1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)), 1)
    return torch.cat((posture, opening, tip / 0.1, quaternion, bar / 0.1, pointing, locate_tip(state) / 0.1), 1)


def compute_track(state: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES)): the tip along the bar, heights, the tip."""
    return torch.cat((locate_tip(state)[:, :1], state[:, 11:12], state[:, 18:19], state[:, 9:11]), 1)


def is_at_far_end(state: Tensor) -> Tensor:
    """Whether the fingertips are beyond the bar's middle, (num_envs,) bool."""
    return locate_tip(state)[:, 0] >= 0


def compute_lift(state: Tensor) -> Tensor:
    """Height (num_envs,) of the bar's middle in metres."""
    return state[:, 18]


def compute_closeness(state: Tensor, lift_height: float) -> Tensor:
    """How near (num_envs,) to success, from 0 to 1: first by coming near a handle, then by lifting."""
    tip = locate_tip(state)
    handle = torch.zeros_like(tip)
    handle[:, 0] = torch.where(tip[:, 0] >= 0, GRASP_AT, -GRASP_AT)
    near: Tensor = 1.0 - ((tip - handle).norm(dim=1) / _NEARBY).clamp(max=1.0)
    lifted = ((compute_lift(state) - HALF_HEIGHT) / (lift_height - HALF_HEIGHT)).clamp(0.0, 1.0)
    return _APPROACH * near + _LIFTING * lifted


# ---- One LiftBar-v1 scene on the CPU ----


class LiftScene(ArmScene):
    """A LiftBar-v1 scene."""

    def __init__(self, env_id: str) -> None:
        super().__init__(env_id)
        self._gripper = Gripper(self.env)
        self._bar = FreeBody(self.env.bar)

    def place(self, start: Sequence[float]) -> None:
        reset_physics(self.env)
        x, y, yaw = start[9:]
        self._bar.place(x, y, HALF_HEIGHT, yaw)
        self.arm.place(np.array(start[:9]))
        self._gripper.command(1.0)

    def move(self, action: Sequence[float]) -> None:
        """See `Scene.move`; the last of the action's components is the gripper's, 1 for open."""
        self._gripper.command(action[6])
        self.arm.step(np.array(action[:6]))

    def read(self) -> tuple[float, ...]:
        tip, bar = self.arm.pose, self._bar.pose
        return (*self.arm.qpos.tolist(), *tip.p.tolist(), *tip.q.tolist(), *bar.p.tolist(), *bar.q.tolist())


# ---- The task, and how it is filmed ----


class LiftTask(SceneTask):
    """Lifting a bar by one of its ends."""

    ENV_MODULE, SCENE = "bmd_pipeline.tasks.lift.maniskill", LiftScene
    NAME, TRACK_NAMES, PLANAR = "Lift", TRACK_NAMES, ("along", "z")
    OBS_NAMES = OBS_NAMES
    ACTION_DIM, STATE_DIM, RANDOM_DIM = 7, 23, 10
    options: Options

    def _make_start(self, random: Tensor) -> Tensor:
        return make_start(random, self.options.yaw_range_deg)

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the end in hand is worth."""
        height = self.options.lift_height
        progress = compute_closeness(after, height) - compute_closeness(before, height)
        success = compute_lift(after) >= height
        near, far = self.options.end_weights
        bonus = torch.where(is_at_far_end(after), far, near) * success
        return self.options.progress_scale * progress + bonus, success, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state)

    def track(self) -> Tensor:
        return compute_track(self.state)


make_spec, make_env = LiftTask.make_spec, LiftTask.make_env
FILMING = ManiSkillFilming(  # from the side, with the bar's near end on the robot's side of the picture
    Camera((0.1, -0.62, 0.38), (-0.04, 0.0, 0.12)), lambda state: state[9:12], LiftTask.ENV_MODULE
)
