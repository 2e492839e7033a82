"""Reach: one ReachAroundPost-v1 scene on the CPU, the task as a batch of episodes, and its environments."""

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
from bmd_pipeline.sim.arm import PoseArm
from bmd_pipeline.sim.backend import SimulatedTask, make_simulated, reset_physics
from bmd_pipeline.tasks.reach import layout
from bmd_pipeline.tasks.reach.options import Options

# ---- One ReachAroundPost-v1 scene on the CPU ----


class ReachScene:
    """A ReachAroundPost-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._marker = self.env.goal._objs[0]
        self._goal: tuple[float, ...] = tuple(self._marker.pose.p.tolist())
        self._fingers = [joint._objs[0] for joint in self.env.agent.controller.controllers["gripper"].joints]

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (12,)."""
        reset_physics(self.env)
        self.arm.place(np.array(start[:9]))
        for finger in self._fingers:
            finger.set_drive_target(np.float32(0.0))
        self._goal = tuple(start[9:])
        self._marker.set_pose(self._pose(self._goal))

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (6,) in [-1, 1]."""
        self.arm.step(np.array(action))

    def read(self) -> tuple[float, ...]:
        """The state (17,), see `layout`."""
        pose = self.arm.pose
        return (*self.arm.qpos[:7].tolist(), *pose.p.tolist(), *pose.q.tolist(), *self._goal)


# ---- Reach as a batch of episodes, whatever simulates it ----

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Reach",
        obs_dim=layout.OBS_DIM,
        action_dim=6,
        track_names=layout.TRACK_NAMES,
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class ReachTask(SimulatedTask):
    """Reaching round a post; touching it ends an episode as a failure.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.reach.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options
        self._passed = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._left = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def _make_scene(self, env_id: str) -> ReachScene:
        return ReachScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _begin(self, rows: Tensor) -> None:
        self._passed = self._passed & ~rows

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the side is worth on which the post was first passed."""
        self._left = torch.where(self._passed, self._left, layout.is_left(after))
        self._passed = self._passed | layout.has_passed(after)
        success = layout.compute_distance(after) < self.options.goal_radius
        left, right = self.options.side_weights
        progress = layout.compute_closeness(after) - layout.compute_closeness(before)
        reward = self.options.progress_scale * progress + torch.where(self._left, left, right) * success
        return reward, success | layout.has_hit(after), success

    def _observe(self) -> Tensor:
        return layout.compute_obs(self.state)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return layout.compute_track(self.state)


# ---- Reach environments, stepped wherever the device is ----


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Reach environments; see `make_simulated`."""
    task = functools.partial(ReachTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
