"""Gaussian densities against torch.distributions."""

from __future__ import annotations

import torch
from torch.distributions import Independent, Normal, kl_divergence

from bmd_pipeline.policies.networks import gaussian_entropy, gaussian_kl, gaussian_log_prob


def test_log_prob_entropy_and_kl_match_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mean, log_std = (torch.randn(16, 5, generator=generator) for _ in range(3))
    reference = Independent(Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_std), reference.log_prob(x))
    torch.testing.assert_close(gaussian_entropy(log_std), reference.entropy())
    other = Independent(Normal(x, log_std.exp()), 1)
    torch.testing.assert_close(gaussian_kl(mean, x, log_std), kl_divergence(reference, other))
