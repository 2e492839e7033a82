"""Denoising chains: DDIM and DDPM as one linear recursion.

Both samplers move from x_t to the next, less noisy x by

    x' = x0_weight · x̂_0(x_t, t) + x_weight · x_t + std · ε

and differ only in the three coefficients. They are plain floats, computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bmd_pipeline.errors import ConfigError

Denoise = Callable[[Tensor, int], Tensor]
"""x_t (B, noise_dim) and t to the predicted clean sample (B, noise_dim)."""


@dataclass(frozen=True)
class Chain:
    """A sampler: one entry per denoising step, the noisiest first.

    Attributes:
        timesteps: diffusion step t at which the denoiser is asked.
        x0_weights: weight of the predicted clean sample.
        x_weights: weight of the current sample.
        stds: standard deviation of the noise that is added.
    """

    timesteps: tuple[int, ...]
    x0_weights: tuple[float, ...]
    x_weights: tuple[float, ...]
    stds: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def deterministic(self) -> bool:
        """Whether the sample depends on nothing but the starting noise."""
        return not any(self.stds)

    def step_mean(self, x: Tensor, k: int, denoise: Denoise) -> Tensor:
        """Mean of the next sample at chain position k; x is (B, noise_dim)."""
        x0 = denoise(x, self.timesteps[k])
        if self.x_weights[k] == 0.0:
            return x0 if self.x0_weights[k] == 1.0 else self.x0_weights[k] * x0
        return torch.add(self.x0_weights[k] * x0, x, alpha=self.x_weights[k])

    def sample(self, noise: Tensor, denoise: Denoise, generator: torch.Generator | None = None) -> Tensor:
        """Runs the whole chain from noise (B, noise_dim).

        Raises:
            ConfigError: the chain adds noise and no generator was given.
        """
        if generator is None and not self.deterministic:
            raise ConfigError("a DDPM chain draws noise at every step: pass a generator, or use DDIM")
        x = noise
        for k, std in enumerate(self.stds):
            x = self.step_mean(x, k, denoise)
            if std > 0.0:
                draw = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x = torch.add(x, draw, alpha=std)
        return x


def make_ddim_chain(alphas_cumprod: Tensor, timesteps: tuple[int, ...], eta: float = 0.0) -> Chain:
    """DDIM; with η = 0 the sample is determined by the starting noise, with η = 1 over all steps it is DDPM.

    Args:
        alphas_cumprod: (denoising_steps,) ᾱ.
        timesteps: falling diffusion steps to visit.
        eta: η in [0, 1], the share of the posterior's standard deviation that every step adds.

    Source: Song, Meng & Ermon (2021), equations 12 and 16; the last step returns x̂_0.
    """
    x0_weights, x_weights, stds = [], [], []
    for k, t in enumerate(timesteps):
        signal = float(alphas_cumprod[t])
        next_signal = float(alphas_cumprod[timesteps[k + 1]]) if k + 1 < len(timesteps) else 1.0
        std = eta * math.sqrt((1.0 - next_signal) / (1.0 - signal) * (1.0 - signal / next_signal))
        # ε̂ = (x - sqrt(ᾱ) x̂_0) / sqrt(1 - ᾱ) follows from the clipped x̂_0, so that a clip acts on both.
        kept = math.sqrt((1.0 - next_signal - std * std) / (1.0 - signal))
        x0_weights.append(math.sqrt(next_signal) - math.sqrt(signal) * kept)
        x_weights.append(kept)
        stds.append(std)
    return Chain(timesteps, tuple(x0_weights), tuple(x_weights), tuple(stds))


def make_ddpm_chain(alphas_cumprod: Tensor) -> Chain:
    """Ancestral sampling over every diffusion step with the posterior variance.

    Args:
        alphas_cumprod: (denoising_steps,) ᾱ.

    Source: Ho, Jain & Abbeel (2020), equations 6 and 7.
    """
    timesteps = tuple(range(len(alphas_cumprod) - 1, -1, -1))
    x0_weights, x_weights, stds = [], [], []
    for t in timesteps:
        signal = float(alphas_cumprod[t])
        next_signal = float(alphas_cumprod[t - 1]) if t > 0 else 1.0
        alpha = signal / next_signal
        x0_weights.append(math.sqrt(next_signal) * (1.0 - alpha) / (1.0 - signal))
        x_weights.append(math.sqrt(alpha) * (1.0 - next_signal) / (1.0 - signal))
        stds.append(math.sqrt((1.0 - next_signal) / (1.0 - signal) * (1.0 - alpha)))
    return Chain(timesteps, tuple(x0_weights), tuple(x_weights), tuple(stds))
