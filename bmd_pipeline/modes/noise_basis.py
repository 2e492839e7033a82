"""An orthonormal basis of a chunk's noise, from slow to fast.

A diffusion policy turns noise w of one value per predicted action component into a chunk. The discrete
cosine transform (type II, orthonormal) along the chunk orders that noise by frequency: the first component
moves every action of the chunk the same way, and it is there that behaviours part.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NoiseBasis(nn.Module):
    """The first `components` frequencies of every action dimension.

    Args:
        horizon: actions in a chunk.
        action_dim: size of an action.
        components: frequencies kept; 0 or `horizon` keeps all.
    """

    rows: Tensor  # (components * action_dim, horizon * action_dim), orthonormal rows

    def __init__(self, horizon: int, action_dim: int, components: int = 0) -> None:
        super().__init__()
        kept = min(components or horizon, horizon)
        phase = math.pi * (torch.arange(horizon) + 0.5) / horizon
        cosines = torch.stack([torch.cos(k * phase) * math.sqrt((2 if k else 1) / horizon) for k in range(kept)])
        self.register_buffer("rows", torch.kron(cosines, torch.eye(action_dim)), persistent=False)
        self.dim = kept * action_dim
        self.noise_dim = horizon * action_dim

    def lift(self, u: Tensor) -> Tensor:
        """Coordinates u (B, dim) as noise (B, noise_dim)."""
        return u @ self.rows

    def project(self, noise: Tensor) -> Tensor:
        """Coordinates (B, dim) of noise (B, noise_dim)."""
        return noise @ self.rows.T

    def complete(self, u: Tensor, rest: Tensor) -> Tensor:
        """Noise (B, noise_dim) with coordinates u (B, dim), and `rest` (B, noise_dim) in all other directions."""
        if self.dim == self.noise_dim:
            return self.lift(u)
        return self.lift(u - self.project(rest)) + rest
