"""The adapters that train the denoiser and the residual."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from bmd_pipeline.config.finetune import DenoiserConfig, ResidualConfig
from bmd_pipeline.config.pretrain import PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters.base import Situation
from bmd_pipeline.rl.adapters.denoiser import TunedDenoiser
from bmd_pipeline.rl.adapters.residual import ResidualAction


def _situation(count: int) -> Situation:
    cond = torch.randn(count, 4, generator=torch.Generator().manual_seed(3))
    none = torch.zeros(count, dtype=torch.bool)
    return Situation(cond, torch.zeros(count, dtype=torch.int64), cond[:, :0], none)


def _noise(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("steps", [0, 1])
def test_denoising_steps_are_gaussians_around_the_policys_own(policy: DiffusionPolicy, steps: int) -> None:
    link = TunedDenoiser(policy, DenoiserConfig(noise_floor=0.2, steps=steps))
    situation, noise = _situation(6), _noise(6)
    x, record = link.act(noise, situation, torch.Generator().manual_seed(0), explore=True)
    samples = record["samples"]
    assert link.num_factors == (steps or 2)
    assert samples.shape == (6, link.num_factors + 1, 8)
    assert torch.equal(samples[:, -1], x)
    first = 2 - link.num_factors
    if first == 0:
        assert torch.equal(samples[:, 0], noise)
    else:
        torch.testing.assert_close(samples[:, 0], policy.step_mean(noise, 0, situation.cond))
    log_prob = link.log_prob(record, situation)
    for factor in range(link.num_factors):
        mean = policy.step_mean(samples[:, factor], first + factor, situation.cond)
        executed = 4 if factor == link.num_factors - 1 else 8  # two of the four actions are executed
        expected = Normal(mean, 0.2).log_prob(samples[:, factor + 1])[:, :executed].sum(dim=1)
        torch.testing.assert_close(log_prob[:, factor], expected)


def test_the_deployed_denoiser_starts_as_the_pre_trained_policy(policy: DiffusionPolicy) -> None:
    link = TunedDenoiser(policy, DenoiserConfig())
    situation, noise = _situation(6), _noise(6)
    x, _ = link.act(noise, situation, torch.Generator(), explore=False)
    torch.testing.assert_close(x, policy.sample(noise, situation.cond))


def test_residual_is_bounded_and_starts_small(policy: DiffusionPolicy) -> None:
    torch.manual_seed(0)
    link = ResidualAction(4, 8, 4, ResidualConfig(scale=0.3, hidden_sizes=(16,)))
    situation, chunk = _situation(64), _noise(64)
    deployed, _ = link.act(chunk, situation, torch.Generator(), explore=False)
    explored, record = link.act(chunk, situation, torch.Generator().manual_seed(0), explore=True)
    deployed, explored = deployed.detach(), explored.detach()
    assert float((deployed - chunk).abs().max()) < 0.02
    assert 0.1 < float((explored - chunk).abs().max()) <= 0.3
    mean = link.network(torch.cat([situation.cond, chunk], dim=1))
    executed = Normal(mean, link.log_std.exp()).log_prob(record["u"])[:, :4].sum(dim=1)
    torch.testing.assert_close(link.log_prob(record, situation)[:, 0], executed)


def test_progressive_exploration_mixes_in_the_residual_slowly() -> None:
    torch.manual_seed(0)
    link = ResidualAction(4, 8, 4, ResidualConfig(progressive_iterations=10, hidden_sizes=(16,)))
    situation, chunk = _situation(2000), _noise(2000)
    for iteration, share in ((0, 0.0), (3, 0.3), (10, 1.0), (99, 1.0)):
        link.begin_iteration(iteration)
        x, record = link.act(chunk, situation, torch.Generator().manual_seed(0), explore=True)
        used = (x != chunk).any(dim=1)
        assert float(used.float().mean()) == pytest.approx(share, abs=0.04)
        assert bool((link.log_prob(record, situation)[~used] == 0).all())


def test_a_sampler_that_adds_noise_keeps_it_when_deployed() -> None:
    torch.manual_seed(0)
    config = PolicyConfig(horizon=4, n_action_steps=2, hidden_sizes=(8,), sampler="ddpm", denoising_steps=4)
    link = TunedDenoiser(DiffusionPolicy(config, 2, 2), DenoiserConfig(noise_floor=0.01))
    assert link.num_factors == 4
    assert link.log_stds[0] == pytest.approx(torch.tensor(link.policy.step_std(0)).log().item())
    assert link.log_stds[-1] == pytest.approx(torch.tensor(0.01).log().item())
