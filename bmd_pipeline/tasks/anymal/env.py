"""Anymal: what a state of it means, one AnymalBeacons-v1 scene on the CPU, and the task as a batch of episodes."""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import JointDrive, make_quaternion
from bmd_pipeline.sim.backend import SceneTask, reset_physics
from bmd_pipeline.sim.render import Camera, ManiSkillFilming
from bmd_pipeline.tasks.anymal.options import Options

# ---- What stands where, and what a state means. Metres, radians, seconds; x is forward, y left ----
#
#               left
#                o
#                |
#       back o --+-- o forward      four beacons, all as far from the start
#                |
#                o
#              right
#
# Starts are rows of joint angles (12), heading (1) and distance of the beacons (1). States are rows of joint angles
# (12), joint velocities (12), position (3) and orientation (4, quaternion (w, x, y, z)) of the base, its linear (3) and
# angular (3) velocity in the world, and the beacons' distance (1). Everything is a function of tensors on any device.

NUM_JOINTS = 12
TRACK_NAMES = ("x", "y", "heading", "height")
DIRECTIONS = ("forward", "left", "back", "right")

REST_QPOS = (0.03, -0.03, 0.03, -0.03, 0.4, 0.4, -0.4, -0.4, -0.8, -0.8, 0.8, 0.8)
"""ManiSkill's standing pose: abduction of the hips, then their flexion, then the knees; each left fore, right fore,
left hind, right hind."""
REST_HEIGHT = 0.545
PERIOD = 10
"""Control steps of a clock that the policy sees: a gait in time with it needs no memory."""
BEACON_DISTANCE, DISTANCE_SPREAD = 1.0, 0.1
_QPOS_SPREAD = 0.05
_HEADING_SPREAD = 0.1
FALLEN_HEIGHT = 0.3
FALLEN_UPRIGHT = 0.7
"""Cosine of the tilt at which it has fallen."""


def make_start(random: Tensor) -> Tensor:
    """Starts (n, 14) from uniform numbers (n, 14)."""
    centred = 2.0 * random - 1.0
    joints = random.new_tensor(REST_QPOS) + _QPOS_SPREAD * centred[:, :NUM_JOINTS]
    heading = _HEADING_SPREAD * centred[:, 12:13]
    return torch.cat((joints, heading, BEACON_DISTANCE + DISTANCE_SPREAD * centred[:, 13:14]), 1)


def make_base_pose(heading: Tensor) -> tuple[Tensor, Tensor]:
    """Position (n, 3) and orientation (n, 4) of the base at the start, from headings (n,)."""
    zero = torch.zeros_like(heading)
    return torch.stack((zero, zero, torch.full_like(zero, REST_HEIGHT)), 1), make_quaternion(heading)


def place_beacons(distance: Tensor) -> Tensor:
    """Beacons (n, 4, 2) in the order of `DIRECTIONS`, from their distance (n,)."""
    unit = distance.new_tensor(((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)))
    return distance[:, None, None] * unit


def _to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3), columns are the body's axes in the world."""
    w, x, y, z = quaternion.unbind(1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def compute_heading(state: Tensor) -> Tensor:
    """Heading (num_envs,) of the base in rad, 0 along x."""
    w, x, y, z = state[:, 27:31].unbind(1)
    return torch.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def compute_turning(state: Tensor, direction: int) -> Tensor:
    """Turn (num_envs,) in rad, in [-π, π), after which walking in the body's `direction` leads straight to its beacon.

    `direction` is an index into DIRECTIONS.
    """
    way = place_beacons(state[:, 37])[:, direction] - state[:, 24:26]
    turning = torch.atan2(way[:, 1], way[:, 0]) - direction * math.pi / 2.0 - compute_heading(state)
    return torch.remainder(turning + math.pi, 2.0 * math.pi) - math.pi


OBS_NAMES = (
    *(f"joint {joint} from rest (0.3 rad)" for joint in range(1, NUM_JOINTS + 1)),
    *(f"velocity of joint {joint} (5 rad/s)" for joint in range(1, NUM_JOINTS + 1)),
    "height from rest (0.1 m)",
    *(f"direction down, {axis} in the base's frame" for axis in "xyz"),
    *(f"velocity {axis} in the base's frame (0.5 m/s)" for axis in "xyz"),
    *(f"angular velocity {axis} in the base's frame (rad/s)" for axis in "xyz"),
    *("twice the sine of the heading", "cosine of the heading"),
    *(f"base {axis} (distance of the beacons)" for axis in "xy"),
    f"distance of the beacons from the usual ({DISTANCE_SPREAD} m)",
    *("sine of the gait's clock", "cosine of the gait's clock"),
)


def compute_obs(state: Tensor, elapsed: Tensor) -> Tensor:
    """What the policy sees of states (num_envs, 38), and of control steps since the start (num_envs,).

    It is (num_envs, 41) of order one: joint angles from rest, joint velocities, the base's height, the direction down,
    linear and angular velocity in its own frame, heading, place among the beacons, their distance, clock.
    """
    body = _to_matrix(state[:, 27:31]).transpose(1, 2)
    heading, phase = compute_heading(state), 2.0 * math.pi / PERIOD * elapsed
    distance = state[:, 37:38]
    return torch.cat(
        (
            (state[:, :12] - state.new_tensor(REST_QPOS)) / 0.3,
            state[:, 12:24] / 5.0,
            (state[:, 26:27] - REST_HEIGHT) / 0.1,
            -body[:, :, 2],
            (body @ state[:, 31:34, None])[:, :, 0] / 0.5,
            (body @ state[:, 34:37, None])[:, :, 0],
            heading.sin()[:, None] / 0.5,
            heading.cos()[:, None],
            state[:, 24:26] / distance,
            (distance - BEACON_DISTANCE) / DISTANCE_SPREAD,
            phase.sin()[:, None],
            phase.cos()[:, None],
        ),
        1,
    )


def compute_distances(state: Tensor) -> Tensor:
    """Metres (num_envs, 4) between the base and each beacon."""
    distances: Tensor = (state[:, None, 24:26] - place_beacons(state[:, 37])).norm(dim=2)
    return distances


def compute_track(state: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES))."""
    return torch.cat((state[:, 24:26], compute_heading(state)[:, None], state[:, 26:27]), 1)


def has_fallen(state: Tensor) -> Tensor:
    """Whether the base is low or tilted, (num_envs,) bool."""
    x, y = state[:, 28], state[:, 29]
    return (state[:, 26] < FALLEN_HEIGHT) | (1.0 - 2.0 * (x * x + y * y) < FALLEN_UPRIGHT)


def compute_closeness(state: Tensor) -> Tensor:
    """Share (num_envs,) of the way to the nearest beacon that is done; 0 at the start, 1 at the beacon."""
    return 1.0 - compute_distances(state).min(dim=1).values / state[:, 37]


# ---- One AnymalBeacons-v1 scene on the CPU ----


class AnymalScene:
    """An AnymalBeacons-v1 environment `env` and the `drive` that steps it."""

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_maniskill_env(env_id)
        self.drive = JointDrive(self.env, "body")
        self._pose: Any = importlib.import_module("sapien").Pose
        self._robot = self.env.agent.robot._objs[0]
        self._base = self._robot.root
        self._distance = BEACON_DISTANCE

    def place(self, start: Sequence[float]) -> None:
        reset_physics(self.env)
        *joints, heading, self._distance = start
        position, orientation = make_base_pose(torch.tensor([heading]))
        self._robot.set_root_pose(self._pose(position[0].tolist(), orientation[0].tolist()))
        self._robot.set_root_linear_velocity(np.zeros(3, np.float32))
        self._robot.set_root_angular_velocity(np.zeros(3, np.float32))
        self.drive.place(np.array(joints))

    def move(self, action: Sequence[float]) -> None:
        self.drive.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        pose, base = self._robot.root_pose, self._base
        parts = (self._robot.qpos, self._robot.qvel, pose.p, pose.q, base.linear_velocity, base.angular_velocity)
        return (*np.concatenate(parts).tolist(), self._distance)


# ---- The task, and how it is filmed ----


class AnymalTask(SceneTask):
    """Walking to one of four beacons; falling ends an episode as a failure."""

    ENV_MODULE, SCENE = "bmd_pipeline.tasks.anymal.maniskill", AnymalScene
    NAME, TRACK_NAMES = "Anymal", TRACK_NAMES
    OBS_NAMES = OBS_NAMES
    ACTION_DIM, STATE_DIM, RANDOM_DIM = NUM_JOINTS, 38, 14
    options: Options

    _make_start = staticmethod(make_start)

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the beacon is worth."""
        fallen = has_fallen(after)
        distance, nearest = compute_distances(after).min(dim=1)
        success = (distance < self.options.goal_radius) & ~fallen
        progress = compute_closeness(after) - compute_closeness(before)
        bonus = after.new_tensor(self.options.direction_weights)[nearest] * success
        return self.options.progress_scale * progress + bonus, success | fallen, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state, self.elapsed)

    def track(self) -> Tensor:
        return compute_track(self.state)


make_spec, make_env = AnymalTask.make_spec, AnymalTask.make_env
FILMING = ManiSkillFilming(  # from behind and above, so that all four beacons are in the picture
    Camera((-2.6, 0.0, 2.4), (0.0, 0.0, 0.2), fov=0.75), lambda state: state[24:27], AnymalTask.ENV_MODULE
)
