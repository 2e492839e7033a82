"""A demonstrator that walks to the beacon in a wanted direction.

It trots in time with the clock, turns so that its gait leads to the beacon, and is pushed about by noise; it records
what it meant to do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.environments.demonstrators import draw_noise, play
from bmd_pipeline.tasks.anymal import layout
from bmd_pipeline.tasks.anymal.gait import load_gaits
from bmd_pipeline.tasks.anymal.options import Options
from bmd_pipeline.tasks.anymal.task import AnymalTask


class AnymalExpert:
    """Demonstrates walking forward, left, back and right."""

    behaviours: tuple[str, ...] = layout.DIRECTIONS

    def __init__(self, options: Options) -> None:
        self._options = options
        self._gaits = load_gaits()
        self._env = AnymalTask(options, 1, auto_reset=False)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one noisy episode; the same seed gives the same episode."""
        env, gait = self._env, self._gaits[behaviour]
        # not (seed, behaviour): seed sequences ignore trailing zeros, and (seed, 0, 0) draws the start
        draw = np.random.default_rng((seed, 0, 0, 1 + behaviour))
        obs = env.reset(seed)
        noise = draw_noise(self._options.expert_noise, (env.spec.horizon, env.spec.action_dim), draw)

        def act() -> NDArray[np.float64]:
            joints = env.state[0, : layout.NUM_JOINTS].numpy().astype(np.float64)
            turning = float(layout.compute_turning(env.state, behaviour))
            return gait.act(int(env.elapsed[0]), joints, turning)

        return play(env, obs, act, noise, behaviour)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()


def make_expert(options: Options) -> AnymalExpert:
    """Builds the demonstrator."""
    return AnymalExpert(options)
