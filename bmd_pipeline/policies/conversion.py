"""What policies of other projects need to become ours: other histories, other scales."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec

NO_BOUND = 1e6
"""`clip_obs`, or a bound on predicted chunks, where there is none."""
SMALLEST_RANGE = 1e-6
"""A component with a smaller one is constant."""

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lower and upper values (dim,), which a network sees as -1 and 1."""


def see_differences(weight: Tensor, n_obs_steps: int) -> Tensor:
    """A layer (width, n · obs_dim) of observations, the oldest first, as one of the latest and its differences to
    earlier ones.

    Raises:
        RuntimeError: it sees another number of observations.
    """
    if weight.shape[1] % n_obs_steps:
        raise RuntimeError("the network sees another number of observations")
    oldest_first = weight.chunk(n_obs_steps, dim=1)
    earlier = [-part for part in reversed(oldest_first[:-1])]
    return torch.cat([torch.stack(oldest_first).sum(dim=0), *earlier], dim=1)


def make_scales(obs: Bounds, action: Bounds, spec: TaskSpec, n_obs_steps: int) -> dict[str, Tensor]:
    """The normalisers of a policy, by name, between the task's units and those of its network.

    A constant component of observations is -1, as its projects have it, and one that leaves its constant is not
    magnified.
    """
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    half = (obs[1] - obs[0]) / 2
    constant = 2 * half < SMALLEST_RANGE
    rest = (n_obs_steps - 1) * spec.obs_dim  # differences to earlier observations
    values = {
        "obs_normaliser.mean": np.concatenate([obs[0] + np.where(constant, 1.0, half), np.zeros(rest)]),
        "obs_normaliser.std": np.tile(np.where(constant, 1.0, half), n_obs_steps),
        "action_normaliser.mean": (action[0] + action[1] - low - high) / (high - low),  # [-1, 1] are low and high
        "action_normaliser.std": np.maximum(action[1] - action[0], SMALLEST_RANGE) / (high - low),
    }
    return {name: torch.from_numpy(value).float() for name, value in values.items()}
