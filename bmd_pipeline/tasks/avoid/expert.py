"""A demonstrator for each of the 24 ways through the course.

It follows a line through the wanted gaps while gusts blow the arm off, and records what it meant to do, not what the
gusts made of it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.environments.demonstrators import draw_noise, play
from bmd_pipeline.tasks.avoid.env import AvoidTask
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid_point.course import MODE_GAPS, MODES, draw_line

SLOWEST = 0.9
"""Largest component of the slowest episodes' actions; the fastest move at 1."""
REACH = 0.75
"""Lines stay within this distance in metres of the robot, where it can still correct outwards."""


class AvoidExpert:
    """Demonstrates each of the 24 modes."""

    behaviours: tuple[str, ...] = MODES

    def __init__(self, options: Options) -> None:
        self._options = options
        self._env = AvoidTask(options, 1, auto_reset=False)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one episode; a success is one that crosses the finish line by the wanted gaps."""
        env, wanted = self._env, MODE_GAPS[behaviour]
        # not (seed, behaviour): seed sequences ignore trailing zeros, and (seed, 0, 0) draws the start
        draw = np.random.default_rng((seed, 0, 0, 1 + behaviour))
        obs = env.reset(seed)
        x, y = env.state[0].tolist()
        line = draw_line(wanted, (x, y), draw, reach=REACH)
        pace = draw.uniform(SLOWEST, 1.0)
        noise = draw_noise(self._options.demo_noise, (env.spec.horizon, 2), draw)

        def act() -> NDArray[np.float64]:
            x, y = env.state[0].tolist()
            return pace * np.array(line.follow(x, y))

        episode = play(env, obs, act, noise, behaviour)
        kept_to_it = tuple(env.referee.gaps[0].tolist()) == wanted
        return replace(episode, success=episode.success and kept_to_it)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()


def make_expert(options: Options) -> AvoidExpert:
    """Builds the demonstrator."""
    return AvoidExpert(options)
