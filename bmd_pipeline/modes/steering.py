"""The steering policy π_ψ(w|s,z) of the published form: chooses the noise that a frozen policy starts from."""

import math

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import SteeringConfig
from bmd_pipeline.policies.networks import code_inputs, count_code_inputs, make_mlp

# ---- An orthonormal basis of a chunk's noise, from slow to fast ----
#
# A diffusion policy turns noise w of one value per predicted action component into a chunk. The discrete
# cosine transform (type II, orthonormal) along the chunk orders that noise by frequency: the first component
# moves every action of the chunk the same way, and it is there that behaviours part.


class NoiseBasis(nn.Module):
    """The first `components` frequencies of every action dimension of a chunk; 0 or `horizon` keeps all."""

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


# ---- The steering policy π_ψ(w|s,z): chooses the noise that a frozen diffusion policy starts from ----
#
# Source: BMD (arXiv 2605.11387), after DSRL (arXiv 2506.15799).

LOG_STD_RANGE = (-4.0, 1.0)


class SteeringPolicy(nn.Module):
    """A Gaussian over noise coordinates, given the condition and the mode code.

    It starts as the prior: zero mean, and standard deviation 1. With K = 1 it gets no code.
    """

    def __init__(self, cond_dim: int, num_codes: int, basis: NoiseBasis, config: SteeringConfig) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.basis = basis
        self.max_noise = config.max_noise
        inputs = cond_dim + count_code_inputs(num_codes)
        self.network = make_mlp((inputs, *config.hidden_sizes, 2 * basis.dim), "silu", last_scale=0.01)
        self.log_std = nn.Parameter(torch.zeros(basis.dim))

    def forward(self, cond: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, bounded by ±max_noise, and log standard deviation of the noise coordinates, each (B, basis.dim).

        They are under conditions (B, cond_dim) and codes (B,) int64 in [0, num_codes).
        """
        seen = torch.cat([cond, code_inputs(code, self.num_codes)], dim=1)
        mean, spread = self.network(seen).chunk(2, dim=1)
        return self.max_noise * torch.tanh(mean / self.max_noise), (self.log_std + spread).clamp(*LOG_STD_RANGE)
