"""DPPO: reinforcement learning of the denoiser itself.

Source: DPPO (arXiv 2409.00588). Every denoising step is an action of a two-layer decision process: a Gaussian around
the step's mean, with a floor under its standard deviation so that there is something to explore.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from bmd_pipeline.config.schema import DenoiserConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.gaussian import gaussian_log_prob
from bmd_pipeline.rl.adapters.base import Adapter, Record, Situation, TrustRegion


class TunedDenoiser(Adapter):
    """A trainable copy of the policy, which explores with more denoising noise than it acts with.

    It explores as the sampler with `config.eta` does, with a standard deviation of at least `config.noise_floor` at
    every step, and acts as the sampler with `config.acting_eta`. The first denoising steps may stay frozen: only the
    last `config.steps` are draws.

    Args:
        policy: the pre-trained or the coded policy, which stays as it is.
        config: exploration, log-probabilities, discount, trust region.
    """

    spreads: Tensor  # (num_factors,) log standard deviations on the device

    def __init__(self, policy: DiffusionPolicy, config: DenoiserConfig) -> None:
        super().__init__()
        self.frozen = policy
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        self.policy.denoiser.requires_grad_(True)
        self.exploring, self.acting = policy.make_chain(config.eta), policy.make_chain(config.acting_eta)
        steps = policy.config.n_action_steps if config.log_prob_steps == "executed" else policy.config.horizon
        self.counted_dim = steps * policy.action_dim
        self.scale = 1.0 / self.counted_dim if config.log_prob_reduction == "mean" else 1.0
        total = len(policy.timesteps)
        self.first = total - min(config.steps or total, total)
        self.num_factors = total - self.first
        self.trust_region = TrustRegion(config.learning_rate, config.clip_ratio, config.target_kl)
        self.factor_weights = tuple(config.denoising_discount ** (total - 1 - k) for k in range(self.first, total))
        self.stds = tuple(max(std, config.noise_floor) for std in self.exploring.stds[self.first :])
        spreads = torch.tensor([math.log(std) for std in self.stds], device=policy.alphas_cumprod.device)
        self.register_buffer("spreads", spreads, persistent=False)

    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Denoises x (B, noise_dim); the record holds the samples (B, num_factors + 1, noise_dim)."""
        chain = self.exploring if explore else self.acting
        stds = (*chain.stds[: self.first], *(self.stds if explore else chain.stds[self.first :]))
        frozen = self.frozen.condition(situation.cond, situation.code) if self.first else None
        tuned = self.policy.condition(situation.cond, situation.code)
        samples = [x]
        for k, std in enumerate(stds):
            x = chain.step_mean(x, k, tuned if frozen is None or k >= self.first else frozen)
            if std > 0.0:
                x = torch.add(x, torch.randn(x.shape, generator=generator, device=x.device), alpha=std)
            samples.append(x)
        return x, {"samples": torch.stack(samples[self.first :], dim=1)}

    def evaluate(self, record: Record, situation: Situation) -> tuple[Tensor, Tensor]:
        """Log-probability (B, num_factors) of each denoising step; the noise is fixed, so that no entropy is trained.

        Of every step only the part of the chunk counts that is executed, unless `config.log_prob_steps` says otherwise,
        and its mean over that part, unless `config.log_prob_reduction` does.
        """
        samples = record["samples"]
        predict = self.policy.condition(situation.cond, situation.code)
        part = slice(self.counted_dim)
        factors = []
        for factor, spread in enumerate(self.spreads):
            mean = self.exploring.step_mean(samples[:, factor], self.first + factor, predict)
            factors.append(self.scale * gaussian_log_prob(samples[:, factor + 1, part], mean[:, part], spread))
        return torch.stack(factors, dim=1), situation.cond.new_zeros(len(situation.cond))

    def trainable(self) -> list[nn.Parameter]:
        """The denoiser's parameters."""
        return list(self.policy.denoiser.parameters())
