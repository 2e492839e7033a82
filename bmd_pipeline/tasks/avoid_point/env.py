"""A point that is steered through the obstacle course by its velocity.

The kinematic version of D3IL's obstacle avoidance: no arm and no contact, so that thousands of episodes are
played in a second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bmd_pipeline.tasks.avoid_point.course import START, Referee, compute_obs, make_course_spec
from bmd_pipeline.tasks.avoid_point.options import Options

SPEED = 0.012
"""Metres covered in one step along each axis by an action of 1."""
POINT_RADIUS = 0.01
"""The point keeps this distance to posts."""
START_STD = (0.01, 0.005)
"""Standard deviation of the starting position."""


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return make_course_spec("AvoidPoint", options, options.horizon)


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> VectorTask:
    """Builds the batched course; it needs no worker processes."""
    return AvoidPoint(options, num_envs, device, auto_reset)


class AvoidPoint(VectorTask):
    """Batched obstacle course; the track is the position (x, y) in metres."""

    capturable = True

    def __init__(
        self, options: Options, num_envs: int, device: torch.device | str = "cpu", auto_reset: bool = True
    ) -> None:
        super().__init__(num_envs, device, auto_reset)
        self.spec = make_spec(options)
        self.options = options
        self.position = torch.zeros(num_envs, 2, device=self.device)
        self.referee = Referee(options, num_envs, POINT_RADIUS, self.device)
        self._start = torch.tensor(START, device=self.device)
        self._start_std = torch.tensor(START_STD, device=self.device)
        self._generator = torch.Generator(device=self.device)

    def _seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def _reset_rows(self, rows: Tensor) -> None:
        offset = torch.randn(self.num_envs, 2, generator=self._generator, device=self.device)
        torch.where(rows[:, None], self._start + self._start_std * offset, self.position, out=self.position)
        self.referee.restart(rows)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        torch.where(active[:, None], self.position + SPEED * action, self.position, out=self.position)
        return self.referee.evaluate(self.position)

    def _observe(self) -> Tensor:
        return compute_obs(self.position, self.options.position_frequencies)

    def track(self) -> Tensor:
        return self.position.clone()
