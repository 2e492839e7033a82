"""What a policy sees of its place on the course."""

from __future__ import annotations

import functools

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
    centre, scale, octaves = _constants(frequencies, position.dtype, position.device)
    scaled = (position - centre) / scale
    angles = scaled[:, None] * octaves  # (num_envs, F, 2)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (num_envs, F, 4)
    return torch.cat([scaled, waves.flatten(1)], dim=1)


@functools.cache  # a device waits whenever the host sends it numbers, and no CUDA graph may hold that
def _constants(frequencies: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Centre (2,), scale (2,) and the factor of every octave (F, 1)."""
    octaves = 2.0 ** torch.arange(1, frequencies + 1, device=device)
    return (
        torch.tensor(CENTRE, dtype=dtype, device=device),
        torch.tensor(SCALE, dtype=dtype, device=device),
        octaves[:, None],
    )
