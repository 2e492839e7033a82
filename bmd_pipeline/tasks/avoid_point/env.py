"""A point that is steered through the obstacle course by its velocity.

The kinematic version of D3IL's obstacle avoidance: no arm and no contact, so that thousands of episodes are
played in a second. Touching a post or leaving the field ends the episode as a failure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.tasks.avoid_point.geometry import NOT_REACHED, ROWS, START, Course
from bmd_pipeline.tasks.avoid_point.options import Options
from bmd_pipeline.tasks.base import TaskSpec, VectorTask

SPEED = 0.012
"""Metres covered in one step along each axis by an action of 1."""
POINT_RADIUS = 0.01
"""The point keeps this distance to posts."""
START_STD = (0.01, 0.005)
"""Standard deviation of the starting position."""
OBS_CENTRE = (0.5, 0.035)
OBS_SCALE = (0.15, 0.2)


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="AvoidPoint",
        obs_dim=2 + 4 * options.position_frequencies,
        action_dim=2,
        track_names=("x", "y"),
        planar=("x", "y"),
        horizon=options.horizon,
        planar_units=("m", "m"),
    )


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
    """Batched obstacle course.

    The observation is the position p at order one, then sin(2p), cos(2p), sin(4p), cos(4p), … up to
    `position_frequencies` octaves. The track is the position (x, y) in metres.
    """

    def __init__(
        self, options: Options, num_envs: int, device: torch.device | str = "cpu", auto_reset: bool = True
    ) -> None:
        super().__init__(num_envs, device, auto_reset)
        self.spec = make_spec(options)
        self.options = options
        self.course = Course(self.device)
        self.position = torch.zeros(num_envs, 2, device=self.device)
        self.gaps = torch.full((num_envs, len(ROWS)), NOT_REACHED, device=self.device)
        self._start = torch.tensor(START, device=self.device)
        self._start_std = torch.tensor(START_STD, device=self.device)
        self._centre = torch.tensor(OBS_CENTRE, device=self.device)
        self._scale = torch.tensor(OBS_SCALE, device=self.device)
        octaves = torch.arange(1, options.position_frequencies + 1, device=self.device)
        self._frequencies = (2.0**octaves)[:, None]  # (F, 1)
        self._favoured = torch.tensor(options.favoured_gaps, device=self.device)  # (3,)
        self._generator = torch.Generator(device=self.device)

    def _seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def _reset_rows(self, rows: Tensor) -> None:
        offset = torch.randn(self.num_envs, 2, generator=self._generator, device=self.device)
        self.position = torch.where(rows[:, None], self._start + self._start_std * offset, self.position)
        self.gaps = torch.where(rows[:, None], NOT_REACHED, self.gaps)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.position = torch.where(active[:, None], self.position + SPEED * action, self.position)
        self.gaps = self.course.follow(self.gaps, self.position)  # those that stand still keep theirs
        failed = self.course.is_blocked(self.position, POINT_RADIUS)
        success = self.course.is_finished(self.position) & ~failed
        return self._pay() * success, success | failed, success

    def _pay(self) -> Tensor:
        """What crossing the finish line is worth, (num_envs,)."""
        if self.options.reward == "plain":
            return torch.ones(self.num_envs, device=self.device)
        return 0.25 + 0.25 * (self.gaps == self._favoured).sum(dim=-1)

    def _observe(self) -> Tensor:
        scaled = (self.position - self._centre) / self._scale
        angles = scaled[:, None] * self._frequencies  # (num_envs, F, 2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (num_envs, F, 4)
        return torch.cat([scaled, waves.flatten(1)], dim=1)

    def track(self) -> Tensor:
        return self.position.clone()
