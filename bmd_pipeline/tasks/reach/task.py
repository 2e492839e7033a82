"""Reach as a batch of episodes, whatever simulates it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SimulatedTask
from bmd_pipeline.tasks.reach import layout
from bmd_pipeline.tasks.reach.options import Options
from bmd_pipeline.tasks.reach.scene import ReachScene

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
