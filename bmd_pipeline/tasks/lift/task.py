"""Lift as a batch of episodes, whatever simulates it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SimulatedTask
from bmd_pipeline.tasks.lift import layout
from bmd_pipeline.tasks.lift.options import Options
from bmd_pipeline.tasks.lift.scene import LiftScene

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
