"""Noise from the prior: what a diffusion policy was trained to start from."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.modes.noise_basis import NoiseBasis
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation


class PriorNoise(Adapter):
    """w ~ N(0, I); where noise is held, its held coordinates take the chosen values instead.

    Args:
        noise_dim: size of w.
        held_basis: directions that can be held, or None.
    """

    def __init__(self, noise_dim: int, held_basis: NoiseBasis | None = None) -> None:
        super().__init__()
        self.noise_dim = noise_dim
        self.held_basis = held_basis

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Draws w (B, noise_dim) and records it."""
        cond = situation.cond
        noise = torch.randn(len(cond), self.noise_dim, generator=generator, device=cond.device)
        if self.held_basis is not None:
            held = self.held_basis.complete(situation.held, noise)
            noise = torch.where(situation.holding[:, None], held, noise)
        return noise, {"w": noise}
