"""The adapters that train the denoiser and the residual."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Normal

from bmd_pipeline.config.schema import DenoiserConfig, PolicyConfig, PPOConfig, ResidualConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import FinetunedDenoiser, FrozenDenoiser, ResidualAction, TrustRegion
from tests.rl.decisions import draw_inputs


def _noise(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(4))


def _residual(num_codes: int = 1, **settings: Any) -> ResidualAction:
    torch.manual_seed(0)
    return ResidualAction(4, 2, num_codes, ResidualConfig(hidden_sizes=(16,), **settings), PPOConfig())


@pytest.mark.parametrize("steps", [0, 1])
def test_only_the_last_denoising_steps_are_draws(policy: DiffusionPolicy, steps: int) -> None:
    adapter = FinetunedDenoiser(policy, DenoiserConfig(steps=steps))
    inputs, noise = draw_inputs(6), _noise(6)
    x, draws = adapter.act(noise, inputs, torch.Generator().manual_seed(0), explore=True)
    samples = draws["samples"]
    assert adapter.num_factors == (steps or 2)
    assert samples.shape == (6, adapter.num_factors + 1, 8)
    assert torch.equal(samples[:, -1], x)
    chain, predict = policy.make_sampler(1.0), policy.condition(inputs.cond)
    start = noise
    if steps:  # the frozen step explores as the sampler does, without a floor
        draw = torch.randn(noise.shape, generator=torch.Generator().manual_seed(0))
        start = chain.step_mean(noise, 0, predict) + chain.stds[0] * draw
    torch.testing.assert_close(samples[:, 0], start)
    assert adapter.factor_weights == ((0.95, 1.0) if steps == 0 else (1.0,))


def test_the_frozen_steps_stay_those_of_the_policy(policy: DiffusionPolicy) -> None:
    """Whatever has become of the fine-tuned copy."""
    adapter = FinetunedDenoiser(policy, DenoiserConfig(steps=1))
    inputs, noise = draw_inputs(6), _noise(6)
    _, before = adapter.act(noise, inputs, torch.Generator().manual_seed(0), explore=True)
    with torch.no_grad():
        for parameter in adapter.trainable():
            parameter.mul_(1.5)
    _, after = adapter.act(noise, inputs, torch.Generator().manual_seed(0), explore=True)
    assert torch.equal(before["samples"][:, 0], after["samples"][:, 0])
    assert not torch.equal(before["samples"][:, 1], after["samples"][:, 1])


def test_bfloat16_rounds_products_alone(policy: DiffusionPolicy) -> None:
    """Acting stays as it is, ratios begin at 1 exactly, and gradients point the same way."""
    found, gradients = {}, {}
    inputs, noise = draw_inputs(64), _noise(64)
    for precision in ("float32", "bfloat16"):
        adapter = FinetunedDenoiser(policy, DenoiserConfig.model_validate({"precision": precision, "kl_weight": 1.0}))
        with torch.no_grad():
            x, draws = adapter.act(noise, inputs, torch.Generator().manual_seed(0), explore=True)
        log_prob, _, penalty = adapter.evaluate(draws, inputs)
        assert log_prob.dtype == penalty.dtype == x.dtype == torch.float32
        assert torch.equal(adapter.evaluate(draws, inputs)[0], log_prob)
        assert torch.equal(penalty, torch.zeros_like(penalty))
        weights = torch.randn(log_prob.shape, generator=torch.Generator().manual_seed(1))
        (log_prob * weights).sum().backward()
        gradients[precision] = torch.cat([parameter.grad.flatten() for parameter in adapter.trainable()])
        found[precision] = x, log_prob.detach()
    assert torch.equal(found["float32"][0], found["bfloat16"][0])
    assert 0.0 < float((found["float32"][1] - found["bfloat16"][1]).abs().max()) < 0.05
    assert float(torch.cosine_similarity(*gradients.values(), dim=0)) > 0.999


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("num_codes", [0, 3])
def test_the_deployed_denoiser_starts_as_the_policy(sampler: str, num_codes: int) -> None:
    """With η = 0 it draws nothing, whatever the sampler; with η = 1 over all steps it is DDPM."""
    torch.manual_seed(0)
    config = PolicyConfig.model_validate(
        {"horizon": 4, "n_action_steps": 2, "hidden_sizes": (8,), "sampler": sampler, "denoising_steps": 4}
    )
    policy = DiffusionPolicy(config, 2, 2, num_codes)
    with torch.no_grad():
        for table in policy.denoiser.code_tables:
            table.normal_()
    inputs, noise = draw_inputs(6, cond_dim=policy.cond_dim), _noise(6)
    still, lively, own = (FinetunedDenoiser(policy, DenoiserConfig(acting_eta=eta)) for eta in (0.0, 1.0, None))
    base = FrozenDenoiser(policy)
    ours, theirs = (one.act(noise, inputs, torch.Generator().manual_seed(1), explore=False)[0] for one in (own, base))
    torch.testing.assert_close(ours, theirs)  # fine-tuning starts from what the policy does by itself
    x, _ = still.act(noise, inputs, torch.Generator(), explore=False)
    predict = policy.condition(inputs.cond, inputs.code)
    torch.testing.assert_close(x, policy.make_sampler(0.0).sample(noise, predict))
    if sampler == "ddpm":
        first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
        x, _ = lively.act(noise, inputs, first, explore=False)
        torch.testing.assert_close(x, policy.sample(noise, inputs.cond, second, inputs.code))
    else:
        torch.testing.assert_close(x, policy.sample(noise, inputs.cond, code=inputs.code))


def test_residual_is_bounded_and_starts_small() -> None:
    adapter = _residual(scale=0.3)
    inputs, action = draw_inputs(64), _noise(64)[:, :2]
    deployed, _ = adapter.act(action, inputs, torch.Generator(), explore=False)
    explored, draws = adapter.act(action, inputs, torch.Generator().manual_seed(0), explore=True)
    deployed, explored = deployed.detach(), explored.detach()
    assert float((deployed - action).abs().max()) < 0.02
    assert 0.1 < float((explored - action).abs().max()) <= 0.3
    mean, std = adapter.network(torch.cat([inputs.cond, action], dim=1)), adapter.log_std.exp()
    log_prob, entropy, _ = adapter.evaluate(draws, inputs)
    torch.testing.assert_close(log_prob[:, 0], Normal(mean, std).log_prob(draws["u"]).sum(dim=1))
    torch.testing.assert_close(entropy, Normal(mean, std.expand_as(mean)).entropy().sum(dim=1))


def test_residual_sees_the_code_if_there_are_any() -> None:
    inputs, action = draw_inputs(6), _noise(6)[:, :2]
    other = draw_inputs(6, num_codes=1)
    for num_codes, same in ((3, False), (1, True)):
        adapter = _residual(num_codes)
        first, second = (adapter.act(action, seen, torch.Generator(), explore=False)[0] for seen in (inputs, other))
        differs = (first != second).any(dim=1)
        assert torch.equal(differs, torch.zeros(6, dtype=torch.bool) if same else inputs.code != 0)


def test_progressive_exploration_mixes_in_the_residual_slowly() -> None:
    adapter = _residual(progressive_iterations=10)
    inputs, action = draw_inputs(2000), torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    for iteration, share in ((0, 0.1), (3, 0.4), (9, 1.0), (99, 1.0)):
        adapter.begin_iteration(iteration)
        x, draws = adapter.act(action, inputs, torch.Generator().manual_seed(0), explore=True)
        used = (x != action).any(dim=1)
        assert float(used.float().mean()) == pytest.approx(share, abs=0.04)
        log_prob, *_ = adapter.evaluate(draws, inputs)
        assert torch.equal(log_prob[:, 0] != 0, used)
    adapter.begin_iteration(0)
    x, _ = adapter.act(action, inputs, torch.Generator(), explore=False)
    assert bool((x != action).any()), "deployed, it corrects from the start"


def test_adapters_that_learn_their_own_way_say_how(policy: DiffusionPolicy) -> None:
    config = DenoiserConfig(learning_rate=3e-5, clip_ratio=0.03, target_kl=0.4)
    assert FinetunedDenoiser(policy, config).trust_region == TrustRegion(3e-5, 0.03, 0.4)
    ppo = PPOConfig(clip_ratio=0.15, target_kl=0.02, learning_rate=1e-6)
    assert ResidualAction(4, 2, 1, ResidualConfig(learning_rate=2e-4), ppo).trust_region == TrustRegion(
        2e-4, 0.15, 0.02
    )
