"""Fine-tuning held to its start: the KL divergence of every denoising step, in PPO's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bmd_pipeline.config.schema import FinetuneConfig, PPOConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import FinetunedDenoiser
from bmd_pipeline.rl.agent import Agent, make_agent
from bmd_pipeline.rl.ppo import PPO, Batch, Critic
from bmd_pipeline.rl.trainer import Trainer
from tests.rl.decisions import decide, draw_inputs

MakeModes = Callable[..., DiscoveredModes]
WEIGHT = 0.7


def make(policy: DiffusionPolicy, modes: DiscoveredModes | None = None, **denoiser: Any) -> Agent:
    """An agent of `dppo`, or with modes of `dppo-bmd`."""
    if modes is not None and modes.coded is not None:  # codes that differ
        with torch.no_grad():
            for table in modes.coded.denoiser.code_tables:
                table.normal_(generator=torch.Generator().manual_seed(6))
    config = FinetuneConfig.model_validate({"denoiser": {"kl_weight": WEIGHT} | denoiser})
    return make_agent("dppo-bmd" if modes else "dppo", policy, modes, config, SteeringConfig())


def denoiser_of(agent: Agent) -> FinetunedDenoiser:
    adapter = agent.adapters[1]
    assert isinstance(adapter, FinetunedDenoiser)
    return adapter


def move(agent: Agent, size: float = 0.1) -> None:
    """Moves the denoiser away from its start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in denoiser_of(agent).trainable():
            weight.add_(size * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({}, 4),
        ({"log_prob_steps": "chunk"}, 8),
        ({"log_prob_reduction": "sum"}, 4),
        ({"steps": 1, "eta": 0.3, "noise_floor": 0.2}, 4),
    ],
)
def test_it_is_the_divergence_of_each_step_from_the_start_under_the_same_code(
    policy: DiffusionPolicy, modes_of: MakeModes, settings: dict[str, Any], width: int, coded: bool
) -> None:
    agent = make(policy, modes_of() if coded else None, **settings)
    adapter, inputs = denoiser_of(agent), draw_inputs(6, agent.num_codes)
    with torch.no_grad():
        _, draws = decide(agent, inputs, torch.Generator().manual_seed(0))
        assert not agent.evaluate(draws, inputs)[2].any()
        move(agent)
        found = agent.evaluate(draws, inputs)[2]
    sampler, samples = policy.make_sampler(settings.get("eta", 1.0)), draws["1.samples"]
    expected = torch.zeros(6)
    for factor in range(adapter.num_factors):
        k = len(sampler.stds) - adapter.num_factors + factor
        std = max(sampler.stds[k], settings.get("noise_floor", 0.1))
        now, start = (
            Normal(sampler.step_mean(samples[:, factor], k, one.condition(inputs.cond, inputs.code))[:, :width], std)
            for one in (adapter.policy, agent.policy)
        )
        each = kl_divergence(now, start)
        expected += each.sum(dim=1) if settings.get("log_prob_reduction") == "sum" else each.mean(dim=1)
    assert bool((expected > 1e-3).all())
    torch.testing.assert_close(found, WEIGHT * expected, rtol=1e-4, atol=1e-6)


def test_its_gradient_is_the_finite_difference_of_the_loss(policy: DiffusionPolicy) -> None:
    agent = make(policy.double()).double()
    inputs = draw_inputs(32, 1)
    inputs = type(inputs)(inputs.cond.double(), inputs.code)
    critic = Critic(4, 2, 1, 1, (16,)).double()
    ppo = PPO(agent, critic, PPOConfig())
    samples = torch.randn(32, 3, 8, generator=torch.Generator().manual_seed(1)).double()
    draws = {"1.samples": samples}
    with torch.no_grad():
        log_prob = agent.evaluate(draws, inputs)[0]
    none = torch.zeros(32).double()  # of an advantage: the policy's loss is the penalty alone
    batch = Batch(inputs, draws, torch.zeros(32, 7).double(), log_prob, none, none[:, None])
    move(agent, 0.05)
    ppo._backward(batch, policy=True)
    weights = denoiser_of(agent).trainable()
    along = [torch.randn(w.shape, generator=torch.Generator().manual_seed(2)).double() for w in weights]
    slope = sum(float((w.grad * d).sum()) for w, d in zip(weights, along, strict=True) if w.grad is not None)

    @torch.no_grad()
    def loss(step: float) -> float:
        for w, d in zip(weights, along, strict=True):
            w.add_(step * d)
        losses = ppo.compute_losses(batch, policy=True)
        for w, d in zip(weights, along, strict=True):
            w.sub_(step * d)
        return float(losses.policy + losses.penalty)

    assert abs(slope) > 1e-2
    assert (loss(1e-5) - loss(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-4)


def train(env: TaskEnv, agent: Agent) -> dict[str, float]:
    torch.manual_seed(2)
    config = FinetuneConfig.model_validate({"ppo": {"minibatch_size": 16, "value_hidden_sizes": (16,)}})
    trainer = Trainer(env, agent, config)
    for iteration in range(3):
        metrics = trainer.iterate(iteration=iteration, seed=0, generator=torch.Generator().manual_seed(iteration))
    return metrics


def test_without_a_weight_the_start_is_not_asked_and_nothing_is_paid(
    env: TaskEnv, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make(policy, kl_weight=0.0)
    monkeypatch.setattr(policy, "condition", pytest.fail)
    assert train(env, agent)["losses/penalty"] == 0.0


@pytest.mark.parametrize("coded", [False, True])
def test_a_large_weight_holds_the_policy_at_its_start(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: MakeModes, coded: bool
) -> None:
    inputs, noise = draw_inputs(64, 3 if coded else 1), torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    moved = []
    for weight in (0.0, 1000.0):
        agent = make(policy, modes_of() if coded else None, kl_weight=weight, learning_rate=1e-3)
        train(env, agent)
        now, start = (
            one.sample(noise, inputs.cond, code=inputs.code) for one in (denoiser_of(agent).policy, agent.policy)
        )
        moved.append(float((now - start).detach().square().mean().sqrt()))
    assert moved[1] < 0.2 * moved[0]
