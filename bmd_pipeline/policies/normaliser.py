"""Per-dimension standardisation that lives inside the checkpoint of the network it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STD_FLOOR = 1e-5
"""A dimension that moves less than this is constant: it is centred but not scaled, or noise would explode."""


class Normaliser(nn.Module):
    """Maps values to zero mean and unit standard deviation, and back.

    Args:
        dim: size of the last axis of the values.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Takes mean and standard deviation from data (N, dim), N >= 1."""
        std, mean = torch.std_mean(values.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std < STD_FLOOR, torch.ones_like(std), std))

    def forward(self, values: Tensor) -> Tensor:
        """Normalises values (..., dim)."""
        return (values - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """Undoes `forward`."""
        return values * self.std + self.mean
