"""Lift: one LiftBar-v1 scene on the CPU, the task as a batch of episodes, and its environments."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import Gripper, PoseArm
from bmd_pipeline.sim.backend import SimulatedTask, make_simulated, reset_physics
from bmd_pipeline.tasks.lift import layout
from bmd_pipeline.tasks.lift.options import Options

# ---- One LiftBar-v1 scene on the CPU ----


class LiftScene:
    """A LiftBar-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str) -> None:
        self.env = backend.make_env(env_id)
        self.arm = PoseArm(self.env)
        self._gripper = Gripper(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._bar = self.env.bar._objs[0]
        self._body = self._bar.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (12,)."""
        reset_physics(self.env)
        x, y, yaw = start[9:]
        self._bar.set_pose(self._pose([x, y, layout.HALF_HEIGHT], [math.cos(yaw / 2.0), 0, 0, math.sin(yaw / 2.0)]))
        self._body.set_linear_velocity([0.0, 0.0, 0.0])
        self._body.set_angular_velocity([0.0, 0.0, 0.0])
        self._body.put_to_sleep()
        self._body.wake_up()  # restarts the timer after which it would fall asleep
        self.arm.place(np.array(start[:9]))
        self._gripper.command(1.0)

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (7,) in [-1, 1]; the last one is the gripper's, 1 for open."""
        self._gripper.command(action[6])
        self.arm.step(np.array(action[:6]))

    def read(self) -> tuple[float, ...]:
        """The state (23,), see `layout`."""
        tip, bar = self.arm.pose, self._bar.pose
        return (*self.arm.qpos.tolist(), *tip.p.tolist(), *tip.q.tolist(), *bar.p.tolist(), *bar.q.tolist())


# ---- Lift as a batch of episodes, whatever simulates it ----

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Lift",
        obs_dim=layout.OBS_DIM,
        action_dim=7,
        track_names=layout.TRACK_NAMES,
        planar=("along", "z"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class LiftTask(SimulatedTask):
    """Lifting a bar by one of its ends.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.lift.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options

    def _make_scene(self, env_id: str) -> LiftScene:
        return LiftScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random, self.options.yaw_range_deg)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the end in hand is worth."""
        height = self.options.lift_height
        progress = layout.compute_closeness(after, height) - layout.compute_closeness(before, height)
        success = layout.compute_lift(after) >= height
        near, far = self.options.end_weights
        bonus = torch.where(layout.is_at_far_end(after), far, near) * success
        return self.options.progress_scale * progress + bonus, success, success

    def _observe(self) -> Tensor:
        return layout.compute_obs(self.state)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return layout.compute_track(self.state)


# ---- Lift environments, stepped wherever the device is ----


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Lift environments; see `make_simulated`."""
    task = functools.partial(LiftTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
