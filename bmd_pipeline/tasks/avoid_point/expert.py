"""A demonstrator for each of the 24 ways through the course.

It follows a line through the wanted gaps while gusts blow it off, and records what it meant to do, not what the
gusts made of it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.environments.demonstrators import draw_noise
from bmd_pipeline.tasks.avoid_point.course import MODE_GAPS, MODES, draw_line
from bmd_pipeline.tasks.avoid_point.env import AvoidPoint
from bmd_pipeline.tasks.avoid_point.options import Options

SLOWEST = 0.9
"""Largest component of the slowest episodes' actions; the fastest move at 1."""


class PointExpert:
    """Demonstrates each of the 24 modes."""

    behaviours = MODES

    def __init__(self, options: Options) -> None:
        self.options = options
        self.env = AvoidPoint(options, num_envs=1, auto_reset=False)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one episode; a success is one that crosses the finish line by the wanted gaps."""
        env, wanted = self.env, MODE_GAPS[behaviour]
        draw = np.random.default_rng(seed)
        obs = env.reset(seed)
        x, y = env.position[0].tolist()
        line = draw_line(wanted, (x, y), draw)
        pace = draw.uniform(SLOWEST, 1.0)
        noise = draw_noise(self.options.demo_noise, (env.spec.horizon, 2), draw)
        seen: list[Tensor] = []
        intended: list[NDArray[np.float64]] = []
        finished = False
        while not bool(env.ended[0]):
            action = pace * np.array(line.follow(x, y))
            executed = torch.tensor(action + noise[len(seen)], dtype=torch.float32)
            seen.append(obs[0])
            intended.append(action)
            moved = env.step(executed[None])
            obs, finished = moved.obs, bool(moved.success[0])
            x, y = env.position[0].tolist()
        kept_to_it = tuple(env.referee.gaps[0].tolist()) == wanted
        return Episode(
            torch.stack(seen).numpy(), np.array(intended, dtype=np.float32), finished and kept_to_it, behaviour
        )

    def close(self) -> None:
        """Nothing to release."""


def make_expert(options: Options) -> PointExpert:
    """Builds the demonstrator."""
    return PointExpert(options)
