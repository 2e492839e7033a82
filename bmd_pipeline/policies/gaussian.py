"""Diagonal Gaussians over vectors."""

from __future__ import annotations

import math

from torch import Tensor

HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(x; mean, diag exp(2·log_std)), summed over the last axis.

    Args:
        x: (..., dim).
        mean: (..., dim).
        log_std: broadcastable to (..., dim).

    Returns:
        (...,) log-density in nats.
    """
    standard = (x - mean) * (-log_std).exp()
    return (-0.5 * standard.square() - log_std - HALF_LOG_TWO_PI).sum(dim=-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy in nats of a diagonal Gaussian with log_std (..., dim), summed over the last axis."""
    return (log_std + 0.5 + HALF_LOG_TWO_PI).sum(dim=-1)
