"""Agents: what they draw, how likely it was, and how they are stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import Normal

from bmd_pipeline.config.discover import SteeringConfig
from bmd_pipeline.config.finetune import FinetuneConfig
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters.base import Situation
from bmd_pipeline.rl.agents import Agent, make_agent, make_base_agent, remove_steering
from bmd_pipeline.rl.tuned import load_trained, trained_state

STEERING = SteeringConfig(hidden_sizes=(16,))


def _situation(count: int, held_dim: int = 0) -> Situation:
    generator = torch.Generator().manual_seed(3)
    return Situation(
        torch.randn(count, 4, generator=generator),
        torch.arange(count) % 3,
        torch.randn(count, held_dim, generator=generator),
        torch.arange(count) % 2 == 0,
    )


def _agent(policy: DiffusionPolicy, modes: DiscoveredModes | None, **settings: object) -> Agent:
    torch.manual_seed(4)
    config = FinetuneConfig.model_validate(settings)
    return make_agent("dsrl-bmd" if modes else "dsrl", policy, modes, config, STEERING)


def test_the_base_agent_is_the_policy(policy: DiffusionPolicy) -> None:
    situation = _situation(6)
    actions, record = make_base_agent(policy).act(situation, torch.Generator().manual_seed(0), explore=True)
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(record["0.w"], noise)
    torch.testing.assert_close(actions, policy.to_action(policy.sample(noise, situation.cond)))


@pytest.mark.parametrize("strategy", ["plain", "seeded", "held"])
def test_log_prob_of_steering_matches_torch_distributions(
    policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes], strategy: str
) -> None:
    modes = None if strategy == "plain" else modes_of(strategy=strategy)
    agent = _agent(policy, modes)
    situation = _situation(6, held_dim=2 if strategy == "held" else 0)
    _, record = agent.act(situation, torch.Generator().manual_seed(0), explore=True)
    mean, log_std = agent.links()[0].steering(situation.cond, situation.code)
    std = log_std.exp()
    if strategy == "held":  # the first two coordinates are held in every other situation
        on = situation.holding[:, None].float()
        mean = mean.clone()
        mean[:, :2] += situation.held * on
        std = torch.cat([std[:, :2] * 0.3**on, std[:, 2:]], dim=1)
    expected = Normal(mean, std).log_prob(record["0.u"]).sum(dim=1)
    assert agent.num_factors == 1
    torch.testing.assert_close(agent.log_prob(record, situation)[:, 0], expected)
    torch.testing.assert_close(agent.entropy(situation), Normal(mean, std).entropy().sum(dim=1))


def test_readout_decides_how_a_deployed_agent_acts(policy: DiffusionPolicy) -> None:
    situation = _situation(6)
    for readout, same in (("mean", True), ("sample", False)):
        agent = _agent(policy, None, readout=readout)
        first, second = (agent.act(situation, torch.Generator().manual_seed(s), explore=False)[0] for s in (0, 1))
        assert torch.equal(first, second) is same


def test_an_unknown_readout_is_refused(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="mean, sample, got 'median'"):
        _agent(policy, None).readout = "median"  # type: ignore[assignment]


def test_trained_weights_round_trip_without_the_frozen_policy(
    policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    agent = _agent(policy, modes_of())
    with torch.no_grad():
        for parameter in [*agent.trainable()[0], *agent.modes.inference.parameters()]:  # type: ignore[union-attr]
            parameter.add_(1.0)
    weights = trained_state(agent)
    assert not any("denoiser" in name for name in weights)
    other = _agent(policy, modes_of())
    load_trained(other, weights)
    assert all(torch.equal(value, trained_state(other)[name]) for name, value in weights.items())
    with pytest.raises(RuntimeError):
        load_trained(_agent(policy, None), {"chain.0.foreign": torch.zeros(1)})


def test_bmd_needs_modes(policy: DiffusionPolicy) -> None:
    with pytest.raises(ArtifactError, match="bmd-pipeline discover"):
        make_agent("dsrl-bmd", policy, None, FinetuneConfig(), STEERING)


def test_without_its_steering_dsrl_is_the_base_policy(policy: DiffusionPolicy) -> None:
    situation = _situation(6)
    agent = _agent(policy, None)
    bare, base = (
        each.act(situation, torch.Generator().manual_seed(0), explore=False)[0]
        for each in (remove_steering(agent), make_base_agent(policy))
    )
    assert torch.equal(bare, base)
    with pytest.raises(ConfigError, match="no steering policy"):
        remove_steering(make_base_agent(policy))
