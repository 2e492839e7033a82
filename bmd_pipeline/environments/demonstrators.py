"""What demonstrators share: playing one noisy episode, and noise with a memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Episode, VectorTask, to_bounds

# ---- Noise with a memory, for demonstrators that are blown off their way ----
#
# A demonstrator executes noisy actions but records what it meant to do. So demonstrations show how to come back from
# beside the way, which is what a cloned policy has to know to stay on it.
#
# Source: injecting noise into the demonstrator as in DART (arXiv 1703.09327).

PERSISTENCE = 0.7
"""Autocorrelation of the noise from one step to the next."""


def draw_noise(std: float, shape: tuple[int, int], draw: np.random.Generator) -> NDArray[np.float64]:
    """Noise of shape (steps, dim): a first-order autoregression that starts at 0 and approaches `std`."""
    shocks = std * math.sqrt(1.0 - PERSISTENCE**2) * draw.standard_normal(shape)
    noise = np.zeros(shape)
    gust = np.zeros(shape[1])
    for step in range(shape[0]):
        gust = PERSISTENCE * gust + shocks[step]
        noise[step] = gust
    return noise


# ---- Playing one noisy episode of a demonstrator and recording what it meant to do ----

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
