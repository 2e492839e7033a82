"""Noise from the prior: what a diffusion policy was trained to start from."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation


class PriorNoise(Adapter):
    """w ~ N(0, I).

    Args:
        noise_dim: size of w.
    """

    def __init__(self, noise_dim: int) -> None:
        super().__init__()
        self.noise_dim = noise_dim

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Draws w (B, noise_dim)."""
        cond = situation.cond
        return torch.randn(len(cond), self.noise_dim, generator=generator, device=cond.device), {}
