"""A point that moves in the plane towards one of four goals.

The 2-D mixture of the paper: position in, displacement out, four equally good goals, or one that pays double.
"""

from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import PointTask, TaskSpec
from bmd_pipeline.sim.render import Disc, DrawnFilming, look_down
from bmd_pipeline.tasks.gaussian_mixture.options import Options

GOALS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
"""Positions of the four goals."""
GOAL_NAMES = ("east", "west", "north", "south")


def compute_distances(position: Tensor, goals: Tensor) -> Tensor:
    """Distances (n, 4) from positions (n, 2) to goals (4, 2)."""
    # Not torch.cdist: its rounding depends on the batch size.
    return (position[:, None] - goals).square().sum(-1).sqrt()


class GaussianMixture(PointTask):
    """Batched point task; observation and track are the position (x, y)."""

    options: Options

    def __init__(self, options: Options, num_envs: int, *arguments: Any, **settings: Any) -> None:
        super().__init__(options, num_envs, *arguments, **settings)
        self.goals = torch.tensor(GOALS, device=self.device)  # (4, 2)
        self.pay = torch.ones(len(GOALS), device=self.device)
        if options.reward == "shifted":
            self.pay[options.favoured_goal] = 2.0

    @classmethod
    def make_spec(cls, options: Options) -> TaskSpec:
        axes = ("x", "y")
        return TaskSpec("GaussianMixture", 2, 2, track_names=axes, planar=axes, horizon=options.horizon, obs_names=axes)

    def _make_start(self, normal: Tensor) -> Tensor:
        return normal * self.options.start_std

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._move(self.options.speed * action, active)
        distance, goal = compute_distances(self.position, self.goals).min(dim=1)
        success = distance < self.options.goal_radius
        return self.pay[goal] * success, success, success

    def _observe(self) -> Tensor:
        return self.position.clone()


make_spec, make_env = GaussianMixture.make_spec, GaussianMixture.make_env


def _lay_out(task: GaussianMixture) -> list[Disc]:
    return [Disc(goal, task.options.goal_radius, "#2e9e5b") for goal in GOALS]


FILMING = DrawnFilming(look_down(0.0, 0.0, 2.8), 0.04, _lay_out)
