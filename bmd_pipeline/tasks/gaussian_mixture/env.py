"""A point that moves in the plane towards one of four goals.

The 2-D mixture of the paper: position in, displacement out, four equally good goals, or one that pays double.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bmd_pipeline.tasks.gaussian_mixture.options import Options

GOALS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
"""Positions of the four goals."""


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="GaussianMixture",
        obs_dim=2,
        action_dim=2,
        track_names=("x", "y"),
        planar=("x", "y"),
        horizon=options.horizon,
    )


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> VectorTask:
    """Builds the batched point task; it needs no worker processes."""
    return GaussianMixture(options, num_envs, device, auto_reset)


class GaussianMixture(VectorTask):
    """Batched point task; observation and track are the position (x, y)."""

    capturable = True

    def __init__(
        self, options: Options, num_envs: int, device: torch.device | str = "cpu", auto_reset: bool = True
    ) -> None:
        super().__init__(num_envs, device, auto_reset)
        self.spec = make_spec(options)
        self.options = options
        self.goals = torch.tensor(GOALS, device=self.device)  # (4, 2)
        pay = [1.0] * len(GOALS)
        if options.reward == "shifted":
            pay[options.favoured_goal] = 2.0
        self.pay = torch.tensor(pay, device=self.device)  # (4,)
        self.position = torch.zeros(num_envs, 2, device=self.device)
        self._generator = torch.Generator(device=self.device)

    def _seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def _reset_rows(self, rows: Tensor) -> None:
        start = torch.randn(self.num_envs, 2, generator=self._generator, device=self.device)
        torch.where(rows[:, None], start * self.options.start_std, self.position, out=self.position)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = self.position + self.options.speed * action
        torch.where(active[:, None], moved, self.position, out=self.position)
        distance, goal = torch.cdist(self.position, self.goals).min(dim=1)
        success = distance < self.options.goal_radius
        return self.pay[goal] * success, success, success

    def _observe(self) -> Tensor:
        return self.position.clone()

    def track(self) -> Tensor:
        return self.position.clone()
