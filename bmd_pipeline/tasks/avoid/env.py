"""Avoid: one Avoid-v1 scene on the CPU, the task as a batch of episodes, and its environments."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import ROBOT_BASE, STEP_METRES, PoseArm, hold_tip
from bmd_pipeline.sim.backend import SimulatedTask, make_simulated, reset_physics
from bmd_pipeline.tasks.avoid import layout
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid_point.course import Referee, compute_obs, obs_dim

# ---- One Avoid-v1 scene on the CPU, moved by planar actions ----

_SCALE = layout.STEP_METRES / STEP_METRES


class AvoidScene:
    """An Avoid-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest, at joint angles (7,); nothing of the past remains."""
        reset_physics(self.env)
        self.arm.place(np.array(start))

    def move(self, action: Sequence[float]) -> None:
        """One control step with a planar action (2,) in [-1, 1]."""
        pose = self.arm.pose
        tip = (*pose.p.tolist(), *pose.q.tolist())
        x, y = action
        self.arm.step(hold_tip(_SCALE * x, _SCALE * y, tip, self.arm.rotation_scale, layout.TIP_HEIGHT))

    def read(self) -> tuple[float, float]:
        """(x, y) of the tip on the course."""
        x, y, _ = self.arm.pose.p.tolist()
        return x - ROBOT_BASE[0], y - ROBOT_BASE[1]


# ---- Avoid as a batch of episodes, whatever simulates it ----

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Avoid",
        obs_dim=obs_dim(options.position_frequencies),
        action_dim=2,
        track_names=("x", "y"),
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class AvoidTask(SimulatedTask):
    """The obstacle course for a Panda with a stick; the track is the tip's position (x, y) in metres.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.avoid.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options
        self.referee = Referee(options, num_envs, layout.BODY_RADIUS, self.device)

    def _make_scene(self, env_id: str) -> AvoidScene:
        return AvoidScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _begin(self, rows: Tensor) -> None:
        self.referee.restart(rows)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.referee.judge(after)

    def _observe(self) -> Tensor:
        return compute_obs(self.state, self.options.position_frequencies)

    def track(self) -> Tensor:
        """Current track (num_envs, 2)."""
        return self.state.clone()


# ---- Avoid environments, stepped wherever the device is ----


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Avoid environments; see `make_simulated`."""
    task = functools.partial(AvoidTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
