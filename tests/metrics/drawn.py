"""Evaluations drawn from policies whose true success and shares are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bmd_pipeline.metrics.episodes import Episodes, ModeWeights

NAMES = ("north", "east", "south", "west")


def draw_episodes(
    policy: str,
    seed: int,
    *,
    rates: Sequence[float],
    shares: Sequence[float],
    n: int,
    rng: np.random.Generator,
) -> Episodes:
    """Episodes that visit modes with these shares and succeed there at these rates; they pay 1 or 0."""
    mode = rng.choice(len(shares), size=n, p=np.asarray(shares) / np.sum(shares))
    success = rng.random(n) < np.asarray(rates)[mode]
    return make_episodes(policy, seed, mode, success, len(shares))


def make_episodes(policy: str, seed: int, mode: np.ndarray, success: np.ndarray, num_modes: int) -> Episodes:
    """Episodes with these modes and outcomes."""
    return Episodes(
        policy=policy,
        seed=seed,
        num_codes=1,
        code=np.zeros(len(mode), np.int64),
        success=success,
        length=np.ones(len(mode), np.int64),
        episode_return=success.astype(np.float64),
        information=np.zeros(len(mode)),
        deviation=0.1 * success,
        labellings={"goal": ModeWeights(NAMES[:num_modes], np.eye(num_modes)[mode])},
    )
