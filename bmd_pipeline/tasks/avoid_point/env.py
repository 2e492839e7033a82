"""A point that is steered through the obstacle course by its velocity.

The kinematic version of D3IL's obstacle avoidance: no arm and no contact, so that thousands of episodes are
played in a second.
"""

from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import PointTask, TaskSpec
from bmd_pipeline.sim.render import Disc, DrawnFilming, Line, look_down
from bmd_pipeline.tasks.avoid_point.course import (
    FIELD_MIN_Y,
    FIELD_X,
    FINISH_Y,
    ROWS,
    START,
    Referee,
    compute_obs,
    make_course_spec,
)
from bmd_pipeline.tasks.avoid_point.options import Options

SPEED = 0.012
"""Metres covered in one step along each axis by an action of 1."""
POINT_RADIUS = 0.01
"""Radius in metres of the moving body: nearer to a post counts as touching it."""
START_STD = (0.01, 0.005)
"""Standard deviation of the starting position."""


class AvoidPoint(PointTask):
    """Batched obstacle course; the track is the position (x, y) in metres."""

    options: Options

    def __init__(self, options: Options, num_envs: int, *arguments: Any, **settings: Any) -> None:
        super().__init__(options, num_envs, *arguments, **settings)
        self.referee = Referee(options, num_envs, POINT_RADIUS, self.device)
        self._start = torch.tensor(START, device=self.device)
        self._start_std = torch.tensor(START_STD, device=self.device)

    @classmethod
    def make_spec(cls, options: Options) -> TaskSpec:
        return make_course_spec("AvoidPoint", options, options.horizon)

    def _make_start(self, normal: Tensor) -> Tensor:
        return self._start + self._start_std * normal

    def _reset(self, seed: int) -> None:
        super()._reset(seed)
        self.referee.restart()

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self._move(SPEED * action, active)
        return self.referee.evaluate(self.position)

    def _observe(self) -> Tensor:
        return compute_obs(self.position, self.options.position_frequencies)


make_spec, make_env = AvoidPoint.make_spec, AvoidPoint.make_env


def _lay_out(task: AvoidPoint) -> list[Disc | Line]:
    (left, right), low, high = FIELD_X, FIELD_MIN_Y, FINISH_Y
    ends = ((left, low), (right, low)), ((left, low), (left, high)), ((right, low), (right, high))
    walls = [Line(start, end, "#b0a89a") for start, end in ends]
    posts = [Disc((x, row.y), row.radius, "#6b6257") for row in ROWS for x in row.posts]
    return [*walls, Line((left, high), (right, high), "#2e9e5b"), *posts]


FILMING = DrawnFilming(look_down(sum(FIELD_X) / 2, (FIELD_MIN_Y + FINISH_Y) / 2, 0.9), POINT_RADIUS, _lay_out)
