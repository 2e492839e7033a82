"""Denoising chains with a linear network: every step is affine with Gaussian noise, so all is known in closed form."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from bmd_pipeline.config.finetune import DenoiserConfig
from bmd_pipeline.config.pretrain import PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.schedule import make_alphas_cumprod
from bmd_pipeline.rl.adapters.base import Situation
from bmd_pipeline.rl.adapters.denoiser import TunedDenoiser

KINDS = list(itertools.product(["x0", "epsilon"], ["ddim", "ddpm"]))
FLOOR = 0.2


def linear_policy(prediction: str, sampler: str) -> DiffusionPolicy:
    torch.manual_seed(0)
    settings = {"horizon": 2, "n_action_steps": 2, "n_obs_steps": 1, "hidden_sizes": (6,), "denoising_steps": 6}
    config = PolicyConfig.model_validate(settings | {"ddim_steps": 3, "prediction": prediction, "sampler": sampler})
    policy = DiffusionPolicy(config, obs_dim=2, action_dim=2)
    policy.chunk_low.fill_(-100.0)
    policy.chunk_high.fill_(100.0)
    policy.denoiser.rest = nn.Sequential(nn.Linear(6, 4))
    return policy.requires_grad_(False).double()


def affine_steps(policy: DiffusionPolicy, cond: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Matrix and offset of every step's mean, from the weights of the network and the schedule."""
    network, signal = policy.denoiser, make_alphas_cumprod("cosine", policy.config.denoising_steps)
    inner, of_cond, of_time = network.first.weight.split([4, 2, network.features.shape[1]], dim=1)
    outer = network.rest[0]
    steps = []
    for k, t in enumerate(policy.timesteps):
        hidden = of_cond @ cond + of_time @ network.features[t] + network.first.bias
        matrix, offset = outer.weight @ inner, outer.weight @ hidden + outer.bias
        if policy.config.prediction == "epsilon":
            matrix = (torch.eye(4) - (1 - signal[t]).sqrt() * matrix) / signal[t].sqrt()
            offset = -(1 - signal[t]).sqrt() * offset / signal[t].sqrt()
        x0_weight, x_weight = policy.chain.x0_weights[k], policy.chain.x_weights[k]
        steps.append((x0_weight * matrix + x_weight * torch.eye(4), x0_weight * offset))
    return steps


def marginal(steps: list[tuple[Tensor, Tensor]], stds: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the chain's end, started from N(0, I)."""
    mean, covariance = torch.zeros(4).double(), torch.eye(4).double()
    for (matrix, offset), std in zip(steps, stds, strict=True):
        mean = matrix @ mean + offset
        covariance = matrix @ covariance @ matrix.T + std**2 * torch.eye(4)
    return mean, covariance


def same_distribution(drawn: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Whitened by the closed form, the draws have zero mean and unit covariance up to their standard errors."""
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (drawn - mean).T, upper=False).T
    bound = 5.0 / len(drawn) ** 0.5
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(4).double(), atol=bound, rtol=0)
    torch.testing.assert_close(white.T.cov(), torch.eye(4).double(), atol=2**0.5 * bound, rtol=0)


def situation(count: int) -> Situation:
    cond = torch.tensor([0.7, -1.1]).double().expand(count, 2)
    return Situation(cond, torch.zeros(count, dtype=torch.int64), cond[:, :0], torch.zeros(count, dtype=torch.bool))


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
def test_the_policys_sample_has_the_composed_mean_and_covariance(prediction: str, sampler: str) -> None:
    policy, seen = linear_policy(prediction, sampler), situation(50_000)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50_000, 4, generator=generator).double()
    drawn = policy.sample(noise, seen.cond, generator)
    same_distribution(drawn, *marginal(affine_steps(policy, seen.cond[0]), policy.chain.stds))


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
@pytest.mark.parametrize("last", [0, 2])
def test_an_exploring_denoiser_has_them_with_its_noise_floor(prediction: str, sampler: str, last: int) -> None:
    policy, seen = linear_policy(prediction, sampler), situation(50_000)
    link = TunedDenoiser(policy, DenoiserConfig(noise_floor=FLOOR, steps=last)).double()
    generator = torch.Generator().manual_seed(0)
    drawn, _ = link.act(torch.randn(50_000, 4, generator=generator).double(), seen, generator, explore=True)
    frozen = len(policy.timesteps) - link.num_factors
    stds = tuple(std if k < frozen else max(std, FLOOR) for k, std in enumerate(policy.chain.stds))
    same_distribution(drawn, *marginal(affine_steps(policy, seen.cond[0]), stds))


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
def test_log_probs_add_up_to_the_joint_density_of_the_whole_chain(prediction: str, sampler: str) -> None:
    """All samples after the first are one Gaussian vector, whose covariance is composed step by step."""
    policy, seen = linear_policy(prediction, sampler), situation(16)
    link = TunedDenoiser(policy, DenoiserConfig(noise_floor=FLOOR)).double()
    start = torch.randn(4, generator=torch.Generator().manual_seed(0)).double()
    _, record = link.act(start.expand(16, 4), seen, torch.Generator().manual_seed(1), explore=True)

    mean, spread = start, torch.zeros(4, 0).double()  # sample k is mean + spread @ (all noise so far)
    means, spreads = [], []
    for (matrix, offset), std in zip(affine_steps(policy, seen.cond[0]), policy.chain.stds, strict=True):
        mean = matrix @ mean + offset
        spread = torch.cat([matrix @ spread, max(std, FLOOR) * torch.eye(4)], dim=1)
        means.append(mean)
        spreads.append(spread)
    factor = torch.cat([nn.functional.pad(s, (0, 4 * len(means) - s.shape[1])) for s in spreads])
    joint = MultivariateNormal(torch.cat(means), scale_tril=factor)

    expected = joint.log_prob(record["samples"][:, 1:].flatten(1))
    torch.testing.assert_close(link.log_prob(record, seen).sum(dim=1), expected, rtol=1e-5, atol=1e-5)
