"""The weight of an entropy bonus that holds a target, as in soft actor-critic."""

from __future__ import annotations

import json
import math

import pytest
import torch

from bmd_pipeline.config.schema import FinetuneConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import Agent, make_agent
from bmd_pipeline.rl.ppo import PPO, TEMPERATURE_RANGE, TEMPERATURE_STEP, Batch, Critic, standardise
from bmd_pipeline.rl.trainer import Trainer, pack_trainer, unpack_trainer
from tests.rl.decisions import decide, draw_inputs

DIMS = 8
PER_DIM = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a standard normal in nats."""


def settings_of(target: float | None) -> FinetuneConfig:
    ppo = {"minibatch_size": 64, "value_hidden_sizes": (16,), "learning_rate": 3e-3, "target_kl": 1.0}
    return FinetuneConfig.model_validate({"target_entropy": target, "ppo": ppo})


def set_std(agent: Agent, std: float) -> None:
    with torch.no_grad():
        agent.adapters[0].steering.log_std.fill_(math.log(std))


def learn(
    policy: DiffusionPolicy,
    target: float | None,
    std: float = 1.0,
    temperature: float = 0.1,
    times: int = 1,
    near: bool = False,
) -> tuple[list[float], list[dict[str, float]]]:
    """Updates where no draw pays, or those near the mean do; returns temperatures and metrics after each."""
    torch.manual_seed(0)
    config = settings_of(target)
    agent = make_agent("dsrl", policy, None, config, SteeringConfig(hidden_sizes=(16,)))
    set_std(agent, std)
    ppo = PPO(agent, Critic(4, 2, 1, 1, (16,)), config.ppo)
    if target is not None:
        ppo.set_temperature(temperature)
    inputs, generator = draw_inputs(256, num_codes=1), torch.Generator().manual_seed(0)
    seen, nothing = torch.zeros(256, 7), torch.zeros(256, 1)
    temperatures, metrics = [], []
    for _ in range(times):
        with torch.no_grad():
            _, draws = decide(agent, inputs, generator)
            log_prob = agent.evaluate(draws, inputs)[0]
        advantage = standardise(log_prob[:, 0]) if near else nothing[:, 0]
        batch = Batch(inputs, draws, seen, log_prob, advantage, nothing)
        metrics.append(ppo.update(batch, generator))
        temperatures.append(ppo.temperature)
    return temperatures, metrics


@pytest.mark.parametrize(("std", "rises"), [(0.3, True), (1.0, False)])
def test_it_rises_while_the_entropy_is_below_its_target_and_falls_while_above(
    policy: DiffusionPolicy, std: float, rises: bool
) -> None:
    """By a share of what is lacking per dimension."""
    target = 0.8
    [temperature], [metrics] = learn(policy, target, std)
    assert metrics["losses/temperature"] == pytest.approx(0.1), "the one that this update used"
    entropy = metrics["losses/entropy"] / DIMS
    assert entropy == pytest.approx(PER_DIM + math.log(std), abs=0.15)
    assert (temperature > 0.1) == rises
    assert temperature == pytest.approx(0.1 * math.exp(TEMPERATURE_STEP * (target - entropy)))


def test_it_stays_within_its_bounds(policy: DiffusionPolicy) -> None:
    low, high = TEMPERATURE_RANGE
    assert learn(policy, -5.0, temperature=low)[0] == [low]
    assert learn(policy, 1.4, std=0.1, temperature=high)[0] == [high]


def test_the_bonus_decides_once_it_is_heavy(policy: DiffusionPolicy) -> None:
    """Draws near the mean pay, so that left to itself the spread shrinks."""
    low, high = TEMPERATURE_RANGE
    left, held = (learn(policy, 0.8, 0.3, each, times=6, near=True)[1] for each in (low, high))
    assert left[-1]["losses/entropy"] < left[0]["losses/entropy"] - 0.1 * DIMS
    assert held[-1]["losses/entropy"] > held[0]["losses/entropy"] + 0.1 * DIMS


def test_without_a_target_there_is_no_bonus(policy: DiffusionPolicy) -> None:
    temperatures, metrics = learn(policy, None, 0.3, times=3)
    assert temperatures == [0.0] * 3
    assert "losses/temperature" not in metrics[0]
    assert metrics[2]["losses/entropy"] == pytest.approx(metrics[0]["losses/entropy"], abs=1e-3)


def test_it_is_part_of_a_trainers_state(env: TaskEnv, policy: DiffusionPolicy) -> None:
    """A trainer that takes over goes on bit for bit: the weight that gradients see comes along too."""

    def make() -> Trainer:
        torch.manual_seed(0)
        config = settings_of(0.8)
        agent = make_agent("dsrl", policy, None, config, SteeringConfig(hidden_sizes=(16,)))
        set_std(agent, 0.3)
        return Trainer(env, agent, config)

    def iterate(trainer: Trainer, iteration: int) -> dict[str, float]:
        return trainer.iterate(iteration=iteration, seed=iteration, generator=torch.Generator().manual_seed(iteration))

    first, second = make(), make()
    first.learner.ppo.set_temperature(0.5)
    iterate(first, 0)
    assert first.learner.ppo.temperature > 0.5
    tensors, values = pack_trainer(first)
    unpack_trainer(second, tensors, json.loads(json.dumps(values)))
    assert second.learner.ppo.temperature == first.learner.ppo.temperature
    assert iterate(first, 1) == iterate(second, 1)
    (ours, our_values), (theirs, their_values) = pack_trainer(first), pack_trainer(second)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert json.dumps(our_values) == json.dumps(their_values)
