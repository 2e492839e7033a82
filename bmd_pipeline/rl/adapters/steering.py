"""DSRL: reinforcement learning of the noise a frozen diffusion policy starts from.

Source: DSRL (arXiv 2506.15799). With mode codes it is the steering policy of BMD (arXiv 2605.11387).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.gaussian import gaussian_entropy, gaussian_log_prob
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation

Readout = Literal["mean", "sample"]
"""How a steering policy acts when it is deployed: by its mean, or by a draw."""


class SteeredNoise(Adapter):
    """w from the steering policy.

    Args:
        steering: π_ψ(w|s,z).
        readout: how it acts when deployed.
        target_entropy: nats per steered dimension that its spread shall not fall below; None: no bound.
    """

    num_factors = 1

    def __init__(self, steering: SteeringPolicy, readout: Readout, target_entropy: float | None = None) -> None:
        super().__init__()
        self.steering = steering
        self.readout = readout
        self.entropy_dims = steering.basis.dim
        self.target_entropy = None if target_entropy is None else target_entropy * self.entropy_dims

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Draws steered coordinates u; unsteered directions of w stay N(0, I)."""
        mean, log_std = self.steering(situation.cond, situation.code)
        u = mean
        if explore or self.readout == "sample":
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=generator, device=mean.device)
        basis = self.steering.basis
        rest = u.new_zeros(len(u), basis.noise_dim)
        if basis.dim < basis.noise_dim:
            rest = torch.randn(rest.shape, generator=generator, device=u.device)
        return basis.complete(u, rest), {"u": u}

    def evaluate(self, record: Record, situation: Situation) -> tuple[Tensor, Tensor]:
        """log π_ψ(u|s,z), (B, 1), and the entropy (B,) of π_ψ in nats."""
        mean, log_std = self.steering(situation.cond, situation.code)
        return gaussian_log_prob(record["u"], mean, log_std)[:, None], gaussian_entropy(log_std)

    def trainable(self) -> list[nn.Parameter]:
        """The steering policy's parameters."""
        return list(self.steering.parameters())
