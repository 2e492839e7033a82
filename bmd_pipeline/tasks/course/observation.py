"""What a policy sees of its place on the course."""

from __future__ import annotations

import torch
from torch import Tensor

CENTRE = (0.5, 0.035)
SCALE = (0.15, 0.2)
"""Position of order one: (position - CENTRE) / SCALE, in metres."""


def obs_dim(frequencies: int) -> int:
    """Size of the observation."""
    return 2 + 4 * frequencies


def compute_obs(position: Tensor, frequencies: int) -> Tensor:
    """The position p at order one, then sin(2p), cos(2p), sin(4p), cos(4p), … up to `frequencies` octaves.

    Args:
        position: (num_envs, 2) in metres.
        frequencies: number of octaves.

    Returns:
        (num_envs, obs_dim(frequencies)).
    """
    scaled = (position - position.new_tensor(CENTRE)) / position.new_tensor(SCALE)
    octaves = torch.arange(1, frequencies + 1, device=position.device)
    angles = scaled[:, None] * (2.0**octaves)[:, None]  # (num_envs, F, 2)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (num_envs, F, 4)
    return torch.cat([scaled, waves.flatten(1)], dim=1)
