"""A demonstrator that reaches round the post on a wanted side.

It goes from point to point at a pace of its own while gusts blow the arm off, and records what it meant to do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.environments.demonstrators import draw_noise, play
from bmd_pipeline.sim.arm import approach, point_down
from bmd_pipeline.tasks.reach import layout
from bmd_pipeline.tasks.reach.env import ReachTask
from bmd_pipeline.tasks.reach.options import Options

_PACE = (0.3, 0.45)  # speeds of episodes, in units of action
_WAYPOINT_STD = 0.008  # metres
_ARRIVED = 0.02  # metres
_BEFORE, _BEHIND = 0.1, 0.1  # metres before and behind the post's middle between which it keeps to the lane


class ReachExpert:
    """Demonstrates passing the post on the left and on the right."""

    behaviours: tuple[str, ...] = ("left", "right")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._env = ReachTask(options, 1, auto_reset=False)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one noisy episode; the same seed gives the same episode."""
        env = self._env
        # not (seed, behaviour): seed sequences ignore trailing zeros, and (seed, 0, 0) draws the start
        draw = np.random.default_rng((seed, 0, 0, 1 + behaviour))
        obs = env.reset(seed)
        pace = draw.uniform(*_PACE)
        points = self._plan(1.0 if self.behaviours[behaviour] == "left" else -1.0, draw)
        noise = draw_noise(self._options.expert_noise, (env.spec.horizon, env.spec.action_dim), draw)

        def act() -> NDArray[np.float64]:
            pose = env.state[0, 7:14].tolist()
            if len(points) > 1 and np.linalg.norm(points[0] - pose[:3]) < _ARRIVED:
                points.pop(0)
            return approach(pose, points[0], point_down(0.0), pace)

        return play(env, obs, act, noise, behaviour)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()

    def _plan(self, side: float, draw: np.random.Generator) -> list[NDArray[np.float64]]:
        """Points (3,) to visit, the goal last."""
        goal = self._env.state[0, 14:17].numpy().astype(np.float64)
        (x, y), height = layout.POST, float(goal[2])
        lane = y + side * layout.LANE
        wobble = _WAYPOINT_STD * draw.standard_normal(3)
        return [
            np.array([x - _BEFORE, lane, height]) + wobble,
            np.array([x + _BEHIND, lane, height]) + wobble,
            goal,
        ]


def make_expert(options: Options) -> ReachExpert:
    """Builds the demonstrator."""
    return ReachExpert(options)
