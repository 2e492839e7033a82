"""Denoising chains with a linear network: every step is affine with Gaussian noise, so all is known in closed form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from bmd_pipeline.config.schema import DenoiserConfig, PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy, Sampler, make_alphas_cumprod
from bmd_pipeline.rl.adapters import Draws, FinetunedDenoiser, PolicyInput
from bmd_pipeline.rl.ppo import compute_policy_loss

KINDS = list(itertools.product(["x0", "epsilon"], ["ddim", "ddpm"]))
ETAS = (0.0, 0.5, 1.0)
FLOOR = 0.2
CLIP = 0.1
WHOLE = {"log_prob_steps": "chunk", "log_prob_reduction": "sum", "noise_floor": FLOOR}


def linear_policy(prediction: str, sampler: str) -> DiffusionPolicy:
    """Chunks of two actions, of which one is executed."""
    torch.manual_seed(0)
    settings = {"horizon": 2, "n_action_steps": 1, "n_obs_steps": 1, "hidden_sizes": (6,), "denoising_steps": 6}
    config = PolicyConfig.model_validate(settings | {"ddim_steps": 3, "prediction": prediction, "sampler": sampler})
    policy = DiffusionPolicy(config, obs_dim=2, action_dim=2)
    policy.chunk_low.fill_(-100.0)
    policy.chunk_high.fill_(100.0)
    policy.denoiser.activation = nn.Identity()
    policy.denoiser.rest[0].weight.data.mul_(0.5)  # no step may meet the bounds
    return policy.requires_grad_(False).double()


def affine_steps(policy: DiffusionPolicy, chain: Sampler, cond: Tensor) -> list[tuple[Tensor, Tensor]]:
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
        x0_weight, x_weight = chain.x0_weights[k], chain.x_weights[k]
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


def inputs(count: int) -> PolicyInput:
    return PolicyInput(torch.tensor([0.7, -1.1]).double().expand(count, 2), torch.zeros(count, dtype=torch.int64))


@torch.no_grad()
def explore(adapter: FinetunedDenoiser, count: int) -> Draws:
    """Draws of a chain from one and the same starting noise."""
    start = torch.randn(4, generator=torch.Generator().manual_seed(0)).double()
    return adapter.act(start.expand(count, 4), inputs(count), torch.Generator().manual_seed(1), explore=True)[1]


def finetuned(policy: DiffusionPolicy, **settings: Any) -> FinetunedDenoiser:
    return FinetunedDenoiser(policy, DenoiserConfig(**settings)).double()


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
def test_the_policys_sample_has_the_composed_mean_and_covariance(prediction: str, sampler: str) -> None:
    policy, seen = linear_policy(prediction, sampler), inputs(50_000)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(50_000, 4, generator=generator).double()
    drawn = policy.sample(noise, seen.cond, generator)
    same_distribution(drawn, *marginal(affine_steps(policy, policy.sampler, seen.cond[0]), policy.sampler.stds))


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
@pytest.mark.parametrize("last", [0, 2])
@pytest.mark.parametrize("eta", ETAS)
def test_an_exploring_denoiser_has_them_with_its_noise_floor(
    prediction: str, sampler: str, last: int, eta: float
) -> None:
    policy, seen = linear_policy(prediction, sampler), inputs(50_000)
    adapter, chain = finetuned(policy, noise_floor=FLOOR, steps=last, eta=eta), policy.make_sampler(eta)
    generator = torch.Generator().manual_seed(0)
    drawn, _ = adapter.act(torch.randn(50_000, 4, generator=generator).double(), seen, generator, explore=True)
    frozen = len(policy.timesteps) - adapter.num_factors
    stds = tuple(std if k < frozen else max(std, FLOOR) for k, std in enumerate(chain.stds))
    assert len(set(stds)) > 1 or (eta, frozen) == (0.0, 0), "else this sees nothing but the floor"
    same_distribution(drawn, *marginal(affine_steps(policy, chain, seen.cond[0]), stds))


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
@pytest.mark.parametrize("eta", ETAS)
def test_a_deployed_denoiser_has_them_without_a_floor(prediction: str, sampler: str, eta: float) -> None:
    policy, seen = linear_policy(prediction, sampler), inputs(50_000)
    adapter, chain = finetuned(policy, noise_floor=FLOOR, acting_eta=eta), policy.make_sampler(eta)
    generator = torch.Generator().manual_seed(0)
    drawn, _ = adapter.act(torch.randn(50_000, 4, generator=generator).double(), seen, generator, explore=False)
    same_distribution(drawn, *marginal(affine_steps(policy, chain, seen.cond[0]), chain.stds))


def compose(policy: DiffusionPolicy, chain: Sampler, start: Tensor) -> MultivariateNormal:
    """All samples after the first are one Gaussian vector, whose covariance is composed step by step."""
    mean, spread = start, torch.zeros(4, 0).double()  # sample k is mean + spread @ (all noise so far)
    means, spreads = [], []
    for (matrix, offset), std in zip(affine_steps(policy, chain, inputs(1).cond[0]), chain.stds, strict=True):
        mean = matrix @ mean + offset
        spread = torch.cat([matrix @ spread, max(std, FLOOR) * torch.eye(4)], dim=1)
        means.append(mean)
        spreads.append(spread)
    factor = torch.cat([nn.functional.pad(s, (0, 4 * len(means) - s.shape[1])) for s in spreads])
    return MultivariateNormal(torch.cat(means), scale_tril=factor)


@pytest.mark.parametrize(("prediction", "sampler"), KINDS)
@pytest.mark.parametrize("eta", ETAS)
def test_log_probs_add_up_to_the_joint_density_of_the_whole_chain(prediction: str, sampler: str, eta: float) -> None:
    policy = linear_policy(prediction, sampler)
    adapter = finetuned(policy, eta=eta, **WHOLE)
    draws = explore(adapter, 16)
    joint = compose(policy, policy.make_sampler(eta), draws["samples"][0, 0])
    expected = joint.log_prob(draws["samples"][:, 1:].flatten(1))
    log_prob, entropy, _ = adapter.evaluate(draws, inputs(16))
    torch.testing.assert_close(log_prob.sum(dim=1), expected, rtol=1e-4, atol=1e-4)
    assert not entropy.any(), "its spread is fixed"


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("counted", ["executed", "chunk"])
def test_log_probs_of_a_step_by_the_part_that_counts(eta: float, reduction: str, counted: str) -> None:
    policy = linear_policy("epsilon", "ddim")
    adapter = finetuned(policy, eta=eta, noise_floor=FLOOR, log_prob_steps=counted, log_prob_reduction=reduction)
    draws, chain = explore(adapter, 16), policy.make_sampler(eta)
    samples, width = draws["samples"], {"executed": 2, "chunk": 4}[counted]
    columns = []
    for k, ((matrix, offset), std) in enumerate(
        zip(affine_steps(policy, chain, inputs(1).cond[0]), chain.stds, strict=True)
    ):
        single = Normal(samples[:, k] @ matrix.T + offset, max(std, FLOOR)).log_prob(samples[:, k + 1])[:, :width]
        columns.append(single.mean(dim=1) if reduction == "mean" else single.sum(dim=1))
    log_prob, *_ = adapter.evaluate(draws, inputs(16))
    torch.testing.assert_close(log_prob, torch.stack(columns, dim=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_clipped_loss_after_the_network_has_moved(eta: float, reduction: str) -> None:
    """By shifting the network's output bias each mean moves by a known offset.

    The ratio of two Gaussians of spread s is exp((2 u - d) d / (2 s²)): u is off the old mean, d between means.
    """
    policy = linear_policy("x0", "ddim")
    adapter = finetuned(policy, eta=eta, noise_floor=FLOOR, log_prob_reduction=reduction)
    count, chain = 64, policy.make_sampler(eta)
    draws, seen = explore(adapter, count), inputs(count)
    samples = draws["samples"]
    output = adapter.policy.denoiser.rest[0]
    with torch.no_grad():
        old = adapter.evaluate(draws, seen)[0]
        shift = torch.tensor([0.05, -0.03, 5.0, 5.0]).double()  # what is not executed does not count
        output.bias.add_(shift)
        new = adapter.evaluate(draws, seen)[0]
    advantage = torch.randn(count, generator=torch.Generator().manual_seed(2)).double()
    clip = torch.full((3,), CLIP).double()
    weights = torch.tensor(adapter.factor_weights).double()
    loss, kl = compute_policy_loss(new, old, advantage, weights, clip)

    expected, kls, clipped = 0.0, [], 0
    for k, ((matrix, offset), std) in enumerate(
        zip(affine_steps(policy, chain, seen.cond[0]), chain.stds, strict=True)
    ):
        spread = max(std, FLOOR)
        u = (samples[:, k + 1] - samples[:, k] @ matrix.T - offset)[:, :2]
        d = chain.x0_weights[k] * shift[:2]
        exponents = (2 * u - d) * d / (2 * spread**2)
        log_ratio = exponents.mean(dim=1) if reduction == "mean" else exponents.sum(dim=1)
        total = 0.0
        for rho, a in zip(log_ratio.exp().tolist(), advantage.tolist(), strict=True):
            bounded = min(max(rho, 1.0 - CLIP), 1.0 + CLIP)
            clipped += rho != bounded
            total += min(rho * a, bounded * a)
        expected -= 0.95 ** (2 - k) * total / count
        kls.append(float((log_ratio.exp() - 1 - log_ratio).mean()))
    assert 0 < clipped < 3 * count
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert kl.tolist() == pytest.approx(kls, rel=1e-6)


def test_a_mean_does_not_depend_on_the_size_of_a_chunk_and_a_sum_does() -> None:
    """A shift that moves every dimension alike: the KL of a sum is that of all dimensions together."""
    shares = {}
    for reduction, horizon in itertools.product(("mean", "sum"), (2, 16)):
        config = PolicyConfig(horizon=horizon, n_action_steps=horizon, n_obs_steps=1, hidden_sizes=(6,))
        torch.manual_seed(0)
        policy = DiffusionPolicy(config, obs_dim=2, action_dim=2).requires_grad_(False).double()
        adapter = finetuned(policy, noise_floor=FLOOR, log_prob_reduction=reduction)
        seen = inputs(4000)
        noise = torch.randn(4000, 2 * horizon, generator=torch.Generator().manual_seed(0)).double()
        _, draws = adapter.act(noise, seen, torch.Generator().manual_seed(1), explore=True)
        with torch.no_grad():
            old = adapter.evaluate(draws, seen)[0]
            adapter.policy.denoiser.rest[-1].bias.add_(0.02)
            moved = adapter.evaluate(draws, seen)[0] - old
        shares[reduction, horizon] = float((moved[:, -1].exp() - 1).abs().gt(0.1).double().mean())
    assert shares["mean", 2] < 0.25
    assert shares["mean", 16] == 0.0
    assert shares["sum", 16] > shares["sum", 2] > shares["mean", 2]
