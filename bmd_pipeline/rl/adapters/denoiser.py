"""DPPO: reinforcement learning of the denoiser itself.

Source: DPPO (arXiv 2409.00588). Every denoising step is an action of a two-layer decision process: a Gaussian around
the step's mean, with a floor under its standard deviation so that there is something to explore.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bmd_pipeline.config.finetune import DenoiserConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.gaussian import gaussian_entropy, gaussian_log_prob
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation


class TunedDenoiser(Adapter):
    """A trainable copy of the policy that denoises with exploration noise.

    The first denoising steps may stay frozen: only the last `config.steps` are draws.

    Args:
        policy: the pre-trained policy, which stays as it is.
        config: noise floor, steps, discount, learning rate.
    """

    spreads: Tensor  # (num_factors,) log_stds on the device

    def __init__(self, policy: DiffusionPolicy, config: DenoiserConfig) -> None:
        super().__init__()
        self.frozen = policy
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        self.policy.denoiser.requires_grad_(True)
        self.executed_dim = policy.config.n_action_steps * policy.action_dim
        total = len(policy.timesteps)
        self.first = total - min(config.steps or total, total)
        self.num_factors = total - self.first
        self.learning_rate = config.learning_rate
        self.factor_weights = tuple(config.denoising_discount ** (total - 1 - k) for k in range(self.first, total))
        self.log_stds = tuple(
            float(torch.tensor(max(policy.step_std(k), config.noise_floor)).log()) for k in range(self.first, total)
        )
        self.stds = tuple(float(torch.tensor(log_std).exp()) for log_std in self.log_stds)
        spreads = torch.tensor(self.log_stds, device=policy.alphas_cumprod.device)
        self.register_buffer("spreads", spreads, persistent=False)

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Denoises x (B, noise_dim); the record holds the samples (B, num_factors + 1, noise_dim).

        When deployed, noise is added only where the policy's own sampler adds it.
        """
        cond = situation.cond
        for k in range(self.first):
            x = self._add(self.frozen.step_mean(x, k, cond), self.policy.step_std(k), generator)
        samples = [x]
        for factor, exploring in enumerate(self.stds):
            k = self.first + factor
            std = exploring if explore else self.policy.step_std(k)
            x = self._add(self.policy.step_mean(x, k, cond), std, generator)
            samples.append(x)
        return x, {"samples": torch.stack(samples, dim=1)}

    def log_prob(self, record: Record, situation: Situation) -> Tensor:
        """Log-probability (B, num_factors) of each denoising step.

        The last step makes the actions; of those only the ones that are executed count.
        """
        samples = record["samples"]
        factors = []
        for factor, spread in enumerate(self.spreads):
            mean = self.policy.step_mean(samples[:, factor], self.first + factor, situation.cond)
            part = slice(self.executed_dim if factor == self.num_factors - 1 else None)
            factors.append(gaussian_log_prob(samples[:, factor + 1, part], mean[:, part], spread))
        return torch.stack(factors, dim=1)

    def entropy(self, situation: Situation) -> Tensor:
        """Entropy (B,) in nats of all steps; the noise is fixed, so it is a constant."""
        cond = situation.cond
        width = cond.new_zeros(len(cond), self.policy.noise_dim)
        return torch.stack([gaussian_entropy(width + log_std) for log_std in self.log_stds]).sum(dim=0)

    def trainable(self) -> list[nn.Parameter]:
        """The denoiser's parameters."""
        return list(self.policy.denoiser.parameters())

    @staticmethod
    def _add(mean: Tensor, std: float, generator: torch.Generator) -> Tensor:
        if std == 0.0:
            return mean
        return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)
