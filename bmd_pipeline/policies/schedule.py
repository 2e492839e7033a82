"""Noise schedules: how much of the clean chunk is left after each diffusion step.

x_t = sqrt(ᾱ_t)·x_0 + sqrt(1 - ᾱ_t)·ε for t = 0 … denoising_steps - 1, with ᾱ falling.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bmd_pipeline.errors import ConfigError

MIN_SIGNAL = 1e-3
"""ᾱ of the last step. Above zero, or an ε-predicting network could not tell the clean chunk there."""
MAX_SIGNAL = 0.9999
"""ᾱ before the first step. Below one, or the noise of the last denoising step would be divided by zero."""


def make_alphas_cumprod(name: Literal["cosine", "linear"], denoising_steps: int) -> Tensor:
    """ᾱ of every diffusion step, float64, strictly falling inside (MIN_SIGNAL, MAX_SIGNAL).

    `cosine` is the schedule of Nichol & Dhariwal (2021), equation 17. `linear` is the continuous limit of
    the linear β schedule, β from 0.1 to 20 over unit time (Song et al. 2021, appendix C), so that it means
    the same for any number of steps. Both are squeezed, not clipped, so that no two steps are equal.

    Args:
        name: the schedule.
        denoising_steps: number of diffusion steps, at least 1.

    Returns:
        (denoising_steps,)
    """
    time = torch.arange(1, denoising_steps + 1, dtype=torch.float64) / denoising_steps
    if name == "cosine":
        offset = torch.tensor(0.008, dtype=torch.float64)
        angle = (time + offset) / (1 + offset) * torch.pi / 2
        signal = (torch.cos(angle) / torch.cos(offset / (1 + offset) * torch.pi / 2)).square()
    elif name == "linear":
        signal = torch.exp(-0.1 * time - 0.5 * (20.0 - 0.1) * time.square())
    else:
        raise ConfigError(f"schedule must be cosine or linear, got {name!r}")
    return MIN_SIGNAL + (MAX_SIGNAL - MIN_SIGNAL) * signal


def ddim_timesteps(denoising_steps: int, ddim_steps: int) -> tuple[int, ...]:
    """Evenly spaced diffusion steps for DDIM, from the noisiest down: 2 of 20 are (19, 9)."""
    if not 1 <= ddim_steps <= denoising_steps:
        raise ConfigError(f"ddim_steps must be in [1, {denoising_steps}], got {ddim_steps}")
    return tuple(i * denoising_steps // ddim_steps - 1 for i in range(ddim_steps, 0, -1))
