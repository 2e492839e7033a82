"""Playing one noisy episode of a demonstrator and recording what it meant to do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bmd_pipeline.tasks.base import Episode, VectorTask, to_bounds

Act = Callable[[], NDArray[np.float64]]
"""The clean action (action_dim,) in [-1, 1] that answers the task as it now is."""


def play(env: VectorTask, first_obs: torch.Tensor, act: Act, noise: NDArray[np.float64], behaviour: int) -> Episode:
    """Plays an episode to its end.

    Args:
        env: a task of one environment without automatic reset, just reset.
        first_obs: (1, obs_dim) what the reset returned.
        act: the demonstrator.
        noise: (horizon, action_dim) added to what is executed, on the same scale.
        behaviour: what the demonstrator was asked for.

    Returns:
        The episode with the clean actions and the observations they answer.
    """
    low, high = np.array(env.spec.action_low), np.array(env.spec.action_high)
    obs, success = first_obs, False
    observations: list[NDArray[np.float32]] = []
    actions: list[NDArray[np.float32]] = []
    while not bool(env.ended[0]):
        action = np.clip(act(), -1.0, 1.0)
        executed = torch.tensor(action + noise[len(actions)], dtype=torch.float32)
        observations.append(obs[0].numpy())
        actions.append(to_bounds(action, low, high).astype(np.float32))
        moved = env.step(executed[None])
        obs, success = moved.obs, bool(moved.success[0])
    return Episode(np.stack(observations), np.stack(actions), success, behaviour)
