"""DSRL: reinforcement learning of the noise a frozen diffusion policy starts from.

Source: DSRL (arXiv 2506.15799). With mode codes it is the steering policy of BMD (arXiv 2605.11387).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bmd_pipeline.modes.noise_basis import NoiseBasis
from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.gaussian import gaussian_entropy, gaussian_log_prob
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation

Readout = Literal["mean", "sample"]
"""How a steering policy acts when it is deployed: by its mean, or by a draw."""
HELD_STD_SCALE = 0.3
"""Held coordinates vary this much less while they are held, so that the choice made for the episode counts."""


class SteeredNoise(Adapter):
    """w from the steering policy, around the noise held for the episode where there is one.

    Args:
        steering: π_ψ(w|s,z).
        readout: how it acts when deployed.
        held_basis: directions that can be held, the first ones of the steering's basis, or None.
    """

    num_factors = 1

    def __init__(
        self,
        steering: SteeringPolicy,
        readout: Readout,
        held_basis: NoiseBasis | None = None,
    ) -> None:
        super().__init__()
        self.steering = steering
        self.readout = readout
        self.held_basis = held_basis
        self.entropy_dims = steering.basis.dim

    def _distribution(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation (B, basis.dim)."""
        mean, log_std = self.steering(situation.cond, situation.code)
        if self.held_basis is not None:
            width = self.held_basis.dim
            holding = situation.holding[:, None]
            held_mean = mean[:, :width] + situation.held * holding
            narrow = torch.full_like(situation.held, HELD_STD_SCALE).log() * holding
            mean = torch.cat([held_mean, mean[:, width:]], dim=1)
            log_std = torch.cat([log_std[:, :width] + narrow, log_std[:, width:]], dim=1)
        return mean, log_std

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Draws steered coordinates u; unsteered directions of w stay N(0, I)."""
        mean, log_std = self._distribution(situation)
        u = mean
        if explore or self.readout == "sample":
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
        basis = self.steering.basis
        rest = u.new_zeros(len(u), basis.noise_dim)
        if basis.dim < basis.noise_dim:
            rest = torch.randn(rest.shape, generator=generator, device=u.device)
        return basis.complete(u, rest), {"u": u}

    def log_prob(self, record: Record, situation: Situation) -> Tensor:
        """log π_ψ(u|s,z), (B, 1)."""
        mean, log_std = self._distribution(situation)
        return gaussian_log_prob(record["u"], mean, log_std)[:, None]

    def entropy(self, situation: Situation) -> Tensor:
        """Entropy (B,) of π_ψ in nats."""
        return gaussian_entropy(self._distribution(situation)[1])

    def trainable(self) -> list[nn.Parameter]:
        """The steering policy's parameters."""
        return list(self.steering.parameters())
