"""An expert for each of the 24 ways through the course: it follows a line through the wanted gaps."""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.tasks.avoid_point.course import MODE_GAPS, MODES, draw_line
from bmd_pipeline.tasks.avoid_point.env import AvoidPoint
from bmd_pipeline.tasks.avoid_point.options import Options

SLOWEST = 0.9
"""Largest component of the slowest episodes' actions; the fastest move at 1."""
Walker = TypeVar("Walker", bound=Any)
"""A task on the course: its track is the place, and it has a `referee`."""


class CourseExpert(NoisyExpert[Walker]):
    """Demonstrates each of the 24 modes; a success is an episode that crosses the finish line by the wanted gaps.

    Attributes:
        reach: farthest distance of lines in metres from the course's origin, where a robot stands.
    """

    behaviours = MODES
    reach = math.inf

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        line = draw_line(MODE_GAPS[behaviour], self._locate(), draw, self.reach)
        pace = draw.uniform(SLOWEST, 1.0)

        def act() -> NDArray[np.float64]:
            return pace * np.array(line.follow(*self._locate()))

        return act

    def _has_shown(self, behaviour: int) -> bool:
        return tuple(self._env.referee.gaps[0].tolist()) == MODE_GAPS[behaviour]

    def _locate(self) -> tuple[float, float]:
        x, y = self._env.track()[0].tolist()
        return x, y


class AvoidPointExpert(CourseExpert[AvoidPoint]):
    """Moves the point."""

    def _make_generator(self, behaviour: int, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)  # the task draws its start from torch


def make_expert(options: Options) -> AvoidPointExpert:
    return AvoidPointExpert(AvoidPoint(options, 1), options.expert_noise)
