"""The pre-trained or the coded policy as it is: noise in, chunk out."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation


class FrozenDenoiser(Adapter):
    """The policy's own sampler (DDIM: deterministic given x and the code); nothing to train."""

    def __init__(self, policy: DiffusionPolicy) -> None:
        super().__init__()
        self.policy = policy

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Denoises x (B, noise_dim) to a normalised chunk of the same shape."""
        return self.policy.sample(x, situation.cond, generator, situation.code), {}
