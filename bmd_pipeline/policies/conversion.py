"""What policies of other projects need to become ours: other histories, other scales."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.networks import require_denoiser

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


def fill_policy(
    config: PolicyConfig,
    spec: TaskSpec,
    weights: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    bound: float,
    source: Path,
) -> DiffusionPolicy:
    """A policy of these settings, ready to act in a task.

    Args:
        config: its settings.
        spec: the task.
        weights: those of its denoiser, by our names.
        scales: its normalisers, as `make_scales` makes them.
        bound: the largest value of a predicted clean chunk.
        source: where it all comes from, for messages.

    Raises:
        RuntimeError: the weights are of another network.
        ArtifactError: a number is not finite in 32 bits.
    """
    noise_dim, cond_dim = spec.action_dim * config.horizon, spec.obs_dim * config.n_obs_steps
    try:
        require_denoiser(config, noise_dim, cond_dim, weights)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    limit = torch.full((noise_dim,), bound)
    state = {**weights, **scales, "chunk_low": -limit, "chunk_high": limit}
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ArtifactError(f"{source} is damaged: {name} would not be finite in 32 bits")
    policy = DiffusionPolicy(config, spec.obs_dim, spec.action_dim)
    policy.load_state_dict(state)
    policy.action_low, policy.action_high = spec.action_low, spec.action_high
    return policy.requires_grad_(False).eval()
