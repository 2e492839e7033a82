"""Multilayer perceptrons, and the denoiser built on one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.errors import ConfigError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
}
TIME_FEATURES = 16


def make_activation(name: str) -> nn.Module:
    """The nonlinearity of a config's `activation`."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


def make_mlp(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers between the given sizes, with the activation between them but not after the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), make_activation(activation)]
    return nn.Sequential(*layers[:-1])


def time_features(denoising_steps: int) -> Tensor:
    """Sine and cosine features (denoising_steps, TIME_FEATURES) of every diffusion step."""
    slowest = math.log(max(denoising_steps, 20))
    rates = torch.exp(-torch.linspace(0.0, slowest, TIME_FEATURES // 2))
    angles = torch.arange(denoising_steps)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Denoiser(nn.Module):
    """MLP of the noisy sample, the condition and the diffusion step.

    The first layer is one matrix over [sample, condition, time features], applied in three parts: the
    condition's once for a whole denoising chain, the time's once for all diffusion steps, and only the
    sample's at every step.

    Args:
        noise_dim: size of the sample.
        cond_dim: size of the condition.
        hidden_sizes: widths of the hidden layers.
        activation: nonlinearity.
        denoising_steps: number of diffusion steps.
    """

    features: Tensor

    def __init__(
        self,
        noise_dim: int,
        cond_dim: int,
        hidden_sizes: Sequence[int],
        activation: str,
        denoising_steps: int,
    ) -> None:
        super().__init__()
        self._parts = (noise_dim, cond_dim, TIME_FEATURES)
        self.first = nn.Linear(sum(self._parts), hidden_sizes[0])
        self.rest = nn.Sequential(make_activation(activation), make_mlp([*hidden_sizes, noise_dim], activation))
        # Follows from the settings, so no part of the checkpoint.
        self.register_buffer("features", time_features(denoising_steps), persistent=False)

    def embed_cond(self, cond: Tensor) -> Tensor:
        """The condition's share of the first layer: (B, cond_dim) to (B, width)."""
        return F.linear(cond, self._weights()[1])

    def embed_time(self) -> Tensor:
        """The share of every diffusion step, bias included: (denoising_steps, width)."""
        return F.linear(self.features, self._weights()[2], self.first.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Predicts from the noisy sample.

        Args:
            x: (B, noise_dim).
            context: (B, width) sum of the embedded condition and time.

        Returns:
            (B, noise_dim)
        """
        prediction: Tensor = self.rest(torch.addmm(context, x, self._weights()[0].T))
        return prediction

    def _weights(self) -> tuple[Tensor, ...]:
        return torch.split(self.first.weight, list(self._parts), dim=1)
