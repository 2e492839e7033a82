"""A demonstrator that lifts the bar by a wanted end.

It goes from point to point at a pace of its own while gusts blow the arm off, looks where the bar is until it grasps,
and records what it meant to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.environments.demonstrators import draw_noise, play
from bmd_pipeline.sim.arm import approach, point_down
from bmd_pipeline.tasks.lift import layout
from bmd_pipeline.tasks.lift.env import LiftTask
from bmd_pipeline.tasks.lift.options import Options

_PACE = (0.3, 0.45)  # speeds of episodes, in units of action
_GRASP_STD = 0.006  # metres along the bar
_HOVER, _CARRY = 0.1, 0.25  # metres above the bar's middle before grasping, above the table after
_ABOVE, _ARRIVED = 0.02, 0.008  # metres within which it has arrived above, at the handle
_CLOSING_STEPS = 6
OPEN, CLOSED = 1.0, -1.0


@dataclass
class _Progress:
    """Where an episode is in hovering, descending, closing, lifting."""

    phase: str = "hover"
    closing_steps: int = 0


class LiftExpert:
    """Demonstrates lifting by the near and by the far end."""

    behaviours: tuple[str, ...] = ("near", "far")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._env = LiftTask(options, 1, auto_reset=False)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one noisy episode; the same seed gives the same episode."""
        env = self._env
        # not (seed, behaviour): seed sequences ignore trailing zeros, and (seed, 0, 0) draws the start
        draw = np.random.default_rng((seed, 0, 0, 1 + behaviour))
        obs = env.reset(seed)
        pace = draw.uniform(*_PACE)
        side = 1.0 if self.behaviours[behaviour] == "far" else -1.0
        grasp_at = side * (layout.GRASP_AT + _GRASP_STD * draw.standard_normal())
        noise = draw_noise(self._options.expert_noise, (env.spec.horizon, env.spec.action_dim), draw)
        noise[:, 6] = 0.0  # the gripper is open or shut
        progress = _Progress()
        return play(env, obs, lambda: self._act(progress, grasp_at, pace), noise, behaviour)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()

    def _act(self, progress: _Progress, grasp_at: float, pace: float) -> NDArray[np.float64]:
        """Clean action (7,)."""
        state = self._env.state[0].numpy().astype(np.float64)
        tip, bar = state[9:16], state[16:19]
        w, x, y, z = state[19:23]
        yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
        handle = bar + grasp_at * np.array([math.cos(yaw), math.sin(yaw), 0.0])
        hover = handle + np.array([0.0, 0.0, _HOVER])
        if progress.phase == "hover" and np.linalg.norm(tip[:3] - hover) < _ABOVE:
            progress.phase = "descend"
        elif progress.phase == "descend" and np.linalg.norm(tip[:3] - handle) < _ARRIVED:
            progress.phase = "close"
        elif progress.phase == "close":
            progress.closing_steps += 1
            if progress.closing_steps >= _CLOSING_STEPS:
                progress.phase = "lift"
        target = {"hover": hover, "descend": handle, "close": handle}.get(progress.phase)
        if target is None:
            target = np.array([tip[0], tip[1], _CARRY])
        grip = OPEN if progress.phase in ("hover", "descend") else CLOSED
        return np.append(approach(tip.tolist(), target, point_down(yaw), pace), grip)


def make_expert(options: Options) -> LiftExpert:
    """Builds the demonstrator."""
    return LiftExpert(options)
