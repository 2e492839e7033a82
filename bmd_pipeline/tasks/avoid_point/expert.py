"""A demonstrator for each of the 24 ways through the course.

It follows a line through the wanted gaps while gusts blow it off, and records what it meant to do, not what the
gusts made of it. So demonstrations show how to come back to a line from beside it, which is what a cloned policy
has to know to stay in its mode.

Source: injecting noise into the demonstrator as in DART (arXiv 1703.09327).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.tasks.avoid_point.env import AvoidPoint
from bmd_pipeline.tasks.avoid_point.geometry import FINISH_Y, MODE_GAPS, MODES, ROWS
from bmd_pipeline.tasks.avoid_point.options import Options
from bmd_pipeline.tasks.base import Episode

PERSISTENCE = 0.7
"""Autocorrelation of the gusts from one step to the next."""
SLOWEST = 0.9
"""Largest component of the slowest episodes' actions; the fastest move at 1."""
SPACING = 0.002
"""Metres between two points of a line."""
LOOK_AHEAD = 8
"""How many points ahead of the nearest one the expert aims: a bit more than a step."""
_STRAIGHT_BEFORE, _STRAIGHT_AFTER = 0.035, 0.03  # metres before and behind a row in which the line runs straight
_FIRST_SPREAD = 0.04  # beside the first row's only post there is room
_SPREAD = 0.008  # standard deviation of the line's place in a gap of the other rows


class Line:
    """A line through given corners, to be followed.

    Args:
        corners: (n, 2).
    """

    def __init__(self, corners: NDArray[np.float64]) -> None:
        corner_at = np.concatenate([[0.0], np.linalg.norm(np.diff(corners, axis=0), axis=1).cumsum()])
        along = np.arange(0.0, corner_at[-1], SPACING)
        self.x = np.interp(along, corner_at, corners[:, 0])
        self.y = np.interp(along, corner_at, corners[:, 1])

    def follow(self, x: float, y: float) -> tuple[float, float]:
        """Direction from a place to the line a little ahead; its larger component is 1 or -1."""
        nearest = int(np.argmin((self.x - x) ** 2 + (self.y - y) ** 2))
        target = min(nearest + LOOK_AHEAD, len(self.x) - 1)
        dx, dy = float(self.x[target]) - x, float(self.y[target]) - y
        size = max(abs(dx), abs(dy), SPACING)
        return dx / size, dy / size


def draw_line(gaps: tuple[int, ...], start: tuple[float, float], draw: np.random.Generator) -> Line:
    """A line through the wanted gaps, a little different each time.

    Args:
        gaps: the wanted gap in each row.
        start: where the episode starts.
        draw: shifts the line within the gaps.
    """
    corners = [start]
    for row, gap in zip(ROWS, gaps, strict=True):
        x = row.gap_centre(gap)
        if len(row.posts) == 1:
            x += math.copysign(_FIRST_SPREAD * draw.random(), x - row.posts[0])
        else:
            x += _SPREAD * draw.standard_normal()
        corners += [(x, row.y - _STRAIGHT_BEFORE), (x, row.y + _STRAIGHT_AFTER)]
    beyond = FINISH_Y + 2 * LOOK_AHEAD * SPACING  # so that there is always a point to aim at
    return Line(np.array([*corners, (corners[-1][0], beyond)]))


def draw_noise(std: float, steps: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Noise (steps, 2) with a memory: a first-order autoregression that starts at 0 and approaches `std`."""
    shocks = std * math.sqrt(1.0 - PERSISTENCE**2) * draw.standard_normal((steps, 2))
    noise = np.zeros((steps, 2))
    gust = np.zeros(2)
    for step in range(steps):
        gust = PERSISTENCE * gust + shocks[step]
        noise[step] = gust
    return noise


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
        noise = draw_noise(self.options.demo_noise, env.spec.horizon, draw)
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
        kept_to_it = tuple(env.gaps[0].tolist()) == wanted
        return Episode(
            torch.stack(seen).numpy(), np.array(intended, dtype=np.float32), finished and kept_to_it, behaviour
        )

    def close(self) -> None:
        """Nothing to release."""


def make_expert(options: Options) -> PointExpert:
    """Builds the demonstrator."""
    return PointExpert(options)
