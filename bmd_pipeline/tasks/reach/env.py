"""Reach: what a state of it means, one ReachAroundPost-v1 scene on the CPU, and the task as a batch of episodes."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.sim.arm import ArmScene
from bmd_pipeline.sim.backend import SceneTask, reset_physics
from bmd_pipeline.sim.render import Camera, ManiSkillFilming
from bmd_pipeline.tasks.reach.options import Options

# ---- What stands where, and what a state means. Metres and radians; left is +y, seen from the robot ----
#
#    y
#    |          ___
#    |  tip    |   |        goal
#    |   *     |   |         o      x
#    |         |___|
#
# Starts are rows of joint angles (9: arm and fingers) and goal (3); states are rows of joint angles of the arm (7),
# pose of the fingertips (position 3, quaternion 4 as (w, x, y, z)) and goal (3). Everything is a function of tensors on
# any device.

TRACK_NAMES = ("x", "y", "z", "goal_distance")
SIDES = ("left", "right")

POST = (-0.04, 0.0)
"""Middle of the post (x, y)."""
POST_HALF_SIZE = (0.03, 0.04, 0.15)
HAND_HALF_SIZE = (0.048, 0.105)
"""Hand and wrist across and along the fingers' opening, seen from above when they point down: 3 mm more than what
was measured to touch the post."""
LANE = 0.175
"""Distance in y from the post's middle at which the hand passes it with a little to spare."""
GOAL_MIDDLE, GOAL_SPREAD = (0.1, 0.0, 0.175), (0.02, 0.03, 0.025)
"""Goals lie within the spread about the middle."""
REST_QPOS = (0.0, -0.0566, 0.0, -2.6067, 0.0, 2.5501, 0.7854, 0.0, 0.0)
"""Joint angles with the fingertips at (-0.18, 0, 0.17), shut and pointing down."""
_QPOS_SPREAD = 0.02
_TYPICAL_WAY = 0.45  # metres round the post from a typical start to a goal


def make_start(random: Tensor) -> Tensor:
    """Starts (n, 12) from uniform numbers (n, 10)."""
    centred = 2.0 * random - 1.0
    arm = random.new_tensor(REST_QPOS[:7]) + _QPOS_SPREAD * centred[:, :7]
    fingers = random.new_tensor(REST_QPOS[7:]).expand(len(random), 2)
    goal = random.new_tensor(GOAL_MIDDLE) + random.new_tensor(GOAL_SPREAD) * centred[:, 7:]
    return torch.cat((arm, fingers, goal), 1)


OBS_NAMES = (
    *(f"joint {joint} from rest (rad)" for joint in range(1, 8)),
    *("fingertips x from the post (0.1 m)", "fingertips y from the post (0.1 m)", "fingertips z from goals (0.1 m)"),
    *(f"fingertips' orientation, {part} of the quaternion" for part in "wxyz"),
    *(f"goal {axis} from the fingertips (0.1 m)" for axis in "xyz"),
    *(f"goal {axis} from the middle of goals ({spread} m)" for axis, spread in zip("xyz", GOAL_SPREAD, strict=True)),
)


def compute_obs(state: Tensor) -> Tensor:
    """What the policy sees of states (num_envs, 17): (num_envs, 20) of order one.

    Joint angles from their rest, fingertips from the post, their orientation (of the two equal quaternions, the one
    with the positive x component), way to the goal, goal.
    """
    joints, tip, quaternion, goal = torch.split(state, [7, 3, 4, 3], dim=1)
    quaternion = torch.where(quaternion[:, 1:2] < 0, -quaternion, quaternion)
    middle = state.new_tensor((*POST, GOAL_MIDDLE[2]))
    posture = joints - state.new_tensor(REST_QPOS[:7])
    goal_offset = (goal - state.new_tensor(GOAL_MIDDLE)) / state.new_tensor(GOAL_SPREAD)
    return torch.cat((posture, (tip - middle) / 0.1, quaternion, (goal - tip) / 0.1, goal_offset), 1)


def compute_distance(state: Tensor) -> Tensor:
    """Metres (num_envs,) between fingertips and goal."""
    distance: Tensor = (state[:, 7:10] - state[:, 14:17]).norm(dim=1)
    return distance


def compute_track(state: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES))."""
    return torch.cat((state[:, 7:10], compute_distance(state)[:, None]), 1)


def has_passed(state: Tensor) -> Tensor:
    """Whether the fingertips have come level with the post, (num_envs,) bool."""
    return state[:, 7] >= POST[0]


def has_hit(state: Tensor) -> Tensor:
    """Whether the hand is at the post, (num_envs,) bool; it counts as pointing down and not turned."""
    across = (state[:, 7] - POST[0]).abs() < POST_HALF_SIZE[0] + HAND_HALF_SIZE[0]
    along = (state[:, 8] - POST[1]).abs() < POST_HALF_SIZE[1] + HAND_HALF_SIZE[1]
    return across & along


def compute_path_length(state: Tensor) -> Tensor:
    """Length (num_envs,) of the shortest path round the post to the goal, in units of `_TYPICAL_WAY` metres.

    It is straight once the post is passed.
    """
    tip, goal = state[:, 7:10], state[:, 14:17]
    ways = []
    for side in (-1.0, 1.0):
        beside = torch.cat((tip.new_tensor((POST[0], POST[1] + side * LANE)).expand(len(tip), 2), goal[:, 2:]), 1)
        ways.append((tip - beside).norm(dim=1) + (beside - goal).norm(dim=1))
    round_it = torch.minimum(*ways)
    return torch.where(has_passed(state), compute_distance(state), round_it) / _TYPICAL_WAY


# ---- One ReachAroundPost-v1 scene on the CPU ----


class ReachScene(ArmScene):
    """A ReachAroundPost-v1 scene."""

    def __init__(self, env_id: str) -> None:
        super().__init__(env_id)
        self._pose: Any = importlib.import_module("sapien").Pose
        self._marker = self.env.goal._objs[0]
        self._goal: tuple[float, ...] = tuple(self._marker.pose.p.tolist())
        # once: `reset_physics` keeps drive targets, and nothing else moves the fingers
        for finger in self.env.agent.controller.controllers["gripper"].joints:
            finger._objs[0].set_drive_target(np.float32(0.0))

    def place(self, start: Sequence[float]) -> None:
        reset_physics(self.env)
        self.arm.place(np.array(start[:9]))
        self._goal = tuple(start[9:])
        self._marker.set_pose(self._pose(self._goal))

    def move(self, action: Sequence[float]) -> None:
        self.arm.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        pose = self.arm.pose
        return (*self.arm.qpos[:7].tolist(), *pose.p.tolist(), *pose.q.tolist(), *self._goal)


# ---- The task, and how it is filmed ----


class ReachTask(SceneTask):
    """Reaching round a post; touching it ends an episode as a failure."""

    ENV_MODULE, SCENE = "bmd_pipeline.tasks.reach.maniskill", ReachScene
    NAME, TRACK_NAMES = "Reach", TRACK_NAMES
    OBS_NAMES = OBS_NAMES
    ACTION_DIM, STATE_DIM, RANDOM_DIM = 6, 17, 10
    options: Options

    def __init__(self, options: Options, num_envs: int, first_row: int = 0, **settings: Any) -> None:
        super().__init__(options, num_envs, first_row, **settings)
        self._passed, self._left = torch.zeros(2, num_envs, dtype=torch.bool, device=self.device)

    _make_start = staticmethod(make_start)

    def _begin(self) -> None:
        self._passed = torch.zeros_like(self._passed)

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the side is worth on which the post was first passed."""
        self._left = torch.where(self._passed, self._left, after[:, 8] >= POST[1])
        self._passed = self._passed | has_passed(after)
        success = compute_distance(after) < self.options.goal_radius
        left, right = self.options.side_weights
        progress = compute_path_length(before) - compute_path_length(after)
        reward = self.options.progress_scale * progress + torch.where(self._left, left, right) * success
        return reward, success | has_hit(after), success

    def _observe(self) -> Tensor:
        return compute_obs(self.state)

    def track(self) -> Tensor:
        return compute_track(self.state)


make_spec, make_env = ReachTask.make_spec, ReachTask.make_env
FILMING = ManiSkillFilming(  # from before the robot, so that the post's sides are the picture's
    Camera((0.56, 0.0, 0.7), (-0.12, 0.0, 0.2), fov=0.8), lambda state: state[7:10], ReachTask.ENV_MODULE
)
