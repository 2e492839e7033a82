"""The denoiser written the usual way: one matrix over the concatenated input, then the other layers."""

from __future__ import annotations

from torch import Tensor

from bmd_pipeline.policies.networks import Denoiser


def run_plainly(denoiser: Denoiser, inputs: Tensor, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Output of the network for (B, noise_dim + cond_dim + TIME_FEATURES), hidden layers scaled and shifted."""
    h: Tensor = denoiser.first(inputs)
    for layer in denoiser.rest:
        h = layer(denoiser.activation(scale * h + shift))
    return h
