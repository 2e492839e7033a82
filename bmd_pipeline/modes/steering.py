"""The steering policy π_ψ(w|s,z) of the published form: chooses the noise that a frozen policy starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.config.schema import SteeringConfig
from bmd_pipeline.policies.networks import make_mlp

# ---- An orthonormal basis of a chunk's noise, from slow to fast ----
#
# A diffusion policy turns noise w of one value per predicted action component into a chunk. The discrete
# cosine transform (type II, orthonormal) along the chunk orders that noise by frequency: the first component
# moves every action of the chunk the same way, and it is there that behaviours part.


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


# ---- The steering policy π_ψ(w|s,z): chooses the noise that a frozen diffusion policy starts from ----
#
# Source: BMD (arXiv 2605.11387), after DSRL (arXiv 2506.15799).

LOG_STD_RANGE = (-4.0, 1.0)


class SteeringPolicy(nn.Module):
    """A Gaussian over noise coordinates, given the condition and the mode code.

    It starts as the prior: zero mean, and standard deviation 1.

    Args:
        cond_dim: size of the policy's condition.
        num_codes: K; 1 means that there is no code to look at.
        basis: the noise directions it steers.
        config: widths and the bound on the mean.
    """

    def __init__(
        self,
        cond_dim: int,
        num_codes: int,
        basis: NoiseBasis,
        config: SteeringConfig,
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.basis = basis
        self.max_noise = config.max_noise
        code_dim = num_codes if num_codes > 1 else 0
        self.network = make_mlp((cond_dim + code_dim, *config.hidden_sizes, 2 * basis.dim), "silu")
        self.log_std = nn.Parameter(torch.zeros(basis.dim))
        last = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()

    def forward(self, cond: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the noise coordinates.

        Args:
            cond: (B, cond_dim).
            code: (B,) int64 in [0, num_codes).

        Returns:
            mean (B, basis.dim), bounded by ±max_noise, and log_std (B, basis.dim).
        """
        x = cond
        if self.num_codes > 1:
            x = torch.cat([cond, F.one_hot(code, self.num_codes).to(cond.dtype)], dim=1)
        mean, spread = self.network(x).chunk(2, dim=1)
        return self.max_noise * torch.tanh(mean / self.max_noise), (self.log_std + spread).clamp(*LOG_STD_RANGE)
