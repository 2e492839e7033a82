"""Anymal: one AnymalBeacons-v1 scene on the CPU, the task as a batch of episodes, and its environments."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import JointDrive
from bmd_pipeline.sim.backend import SimulatedTask, make_simulated, reset_physics
from bmd_pipeline.tasks.anymal import layout
from bmd_pipeline.tasks.anymal.model import find_urdf
from bmd_pipeline.tasks.anymal.options import Options

# ---- One AnymalBeacons-v1 scene on the CPU ----


class AnymalScene:
    """An AnymalBeacons-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        drive: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.drive = JointDrive(self.env, "body")
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._robot = self.env.agent.robot._objs[0]
        self._base = self._robot.root
        self._distance = layout.BEACON_DISTANCE

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (14,)."""
        reset_physics(self.env)
        *joints, heading, self._distance = start
        position, orientation = layout.make_base_pose(torch.tensor([heading]))
        self._robot.set_root_pose(self._pose(position[0].tolist(), orientation[0].tolist()))
        self._robot.set_root_linear_velocity(np.zeros(3, np.float32))
        self._robot.set_root_angular_velocity(np.zeros(3, np.float32))
        self.drive.place(np.array(joints))

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (12,) in [-1, 1]."""
        self.drive.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        """The state (38,), see `layout`."""
        pose, base = self._robot.root_pose, self._base
        parts = (self._robot.qpos, self._robot.qvel, pose.p, pose.q, base.linear_velocity, base.angular_velocity)
        return (*np.concatenate(parts).tolist(), self._distance)


# ---- Anymal as a batch of episodes, whatever simulates it ----

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Anymal",
        obs_dim=layout.OBS_DIM,
        action_dim=layout.NUM_JOINTS,
        track_names=layout.TRACK_NAMES,
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class AnymalTask(SimulatedTask):
    """Walking to one of four beacons; falling ends an episode as a failure.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.anymal.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options

    def _make_scene(self, env_id: str) -> AnymalScene:
        return AnymalScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the beacon is worth."""
        fallen = layout.has_fallen(after)
        distance, nearest = layout.compute_distances(after).min(dim=1)
        success = (distance < self.options.goal_radius) & ~fallen
        progress = layout.compute_closeness(after) - layout.compute_closeness(before)
        bonus = after.new_tensor(self.options.direction_weights)[nearest] * success
        return self.options.progress_scale * progress + bonus, success | fallen, success

    def _observe(self) -> Tensor:
        return layout.compute_obs(self.state, self.elapsed)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return layout.compute_track(self.state)


# ---- Anymal environments, stepped wherever the device is ----

find_urdf()  # what lacks the wheel is to fail on import, as with any missing module


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Anymal environments; see `make_simulated`."""
    task = functools.partial(AnymalTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
