"""Advantages and PPO's losses against Stable-Baselines3."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger

from bmd_pipeline.rl.ppo import compute_continuation, compute_gae, compute_policy_loss, compute_value_loss

OBS, ACTION = Box(-1.0, 1.0, (3,)), Box(-1.0, 1.0, (2,))


@given(st.integers(0, 10_000), st.floats(0.1, 1.0), st.floats(0.0, 1.0), st.booleans())
@settings(max_examples=50)
def test_advantages_and_returns(seed: int, gamma: float, gae_lambda: float, continuing: bool) -> None:
    """One episode per environment, of which the buffer sees only a prefix: another one follows.

    A time limit that is to be bootstrapped over enters there as a reward, γ times the value of the final state.
    """
    steps, count = 8, 6
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(steps, count, 1, generator=generator)
    value = torch.randn(steps + 1, count, 1, generator=generator)
    taken = torch.randint(1, steps + 1, (count,), generator=generator)
    truncated = torch.rand(count, generator=generator) < 0.5
    active_mask = torch.arange(steps)[:, None] < taken
    nonterminal, bootstrap = compute_continuation(active_mask, truncated, continuing)
    advantage, returns = compute_gae(reward, value, nonterminal, bootstrap, gamma, gae_lambda)

    last = torch.arange(steps)[:, None] == taken - 1
    final = value.squeeze(2).gather(0, taken[None]) * (truncated & torch.tensor(continuing))
    paid = reward.squeeze(2) + gamma * last * final
    starts = torch.arange(steps)[:, None] == taken
    buffer = RolloutBuffer(steps, OBS, ACTION, "cpu", gae_lambda, gamma, n_envs=count)
    for t in range(steps):
        obs, action = np.zeros((count, 3)), np.zeros((count, 2))
        buffer.add(obs, action, paid[t].numpy(), starts[t].numpy(), value[t], torch.zeros(count))
    buffer.compute_returns_and_advantage(value[-1], last[-1].numpy())
    for ours, theirs in ((advantage, buffer.advantages), (returns, buffer.returns)):
        torch.testing.assert_close(
            ours.squeeze(2)[active_mask], torch.as_tensor(theirs)[active_mask], rtol=1e-4, atol=1e-4
        )


class Nothing(gymnasium.Env):  # type: ignore[type-arg]
    """Gives their PPO the shapes of a task."""

    observation_space, action_space = OBS, ACTION


@pytest.mark.parametrize("clip_ratio", [0.05, 0.2])
def test_losses_and_their_gradient(clip_ratio: float) -> None:
    """One full-batch step of gradient descent at rate 1 shows the gradient of their loss."""
    torch.manual_seed(0)
    count = 64
    model = PPO(
        "MlpPolicy",
        Nothing(),
        learning_rate=1.0,
        n_steps=count,
        batch_size=count,
        n_epochs=1,
        clip_range=clip_ratio,
        normalize_advantage=False,
        max_grad_norm=1e9,
        device="cpu",
        policy_kwargs={"optimizer_class": torch.optim.SGD},
    )
    model.set_logger(Logger(None, []))
    generator = torch.Generator().manual_seed(1)
    obs, action = torch.rand(count, 3, generator=generator), torch.randn(count, 2, generator=generator)
    advantage, returns = torch.randn(count, generator=generator), torch.randn(count, generator=generator)
    with torch.no_grad():
        old_value, log_prob, _ = model.policy.evaluate_actions(obs, action)
    old_log_prob = log_prob + 0.2 * torch.randn(count, generator=generator)

    value, log_prob, _ = model.policy.evaluate_actions(obs, action)
    policy_loss, kl = compute_policy_loss(
        log_prob[:, None], old_log_prob[:, None], advantage, torch.ones(1), torch.tensor(clip_ratio)
    )
    value_loss = compute_value_loss(value, returns[:, None])
    parameters = list(model.policy.parameters())
    gradient = torch.autograd.grad(policy_loss + value_loss, parameters)
    before = [parameter.detach().clone() for parameter in parameters]

    for row in range(count):
        model.rollout_buffer.add(
            obs[row].numpy(), action[row].numpy(), np.zeros(1), np.zeros(1), old_value[row], old_log_prob[row][None]
        )
    model.rollout_buffer.advantages = advantage[:, None].numpy()
    model.rollout_buffer.returns = returns[:, None].numpy()
    model.train()
    logged = model.logger.name_to_value
    assert 0.1 < logged["train/clip_fraction"] < 0.9
    assert float(policy_loss.detach()) == pytest.approx(logged["train/policy_gradient_loss"], rel=1e-4)
    assert float(value_loss.detach()) == pytest.approx(0.5 * logged["train/value_loss"], rel=1e-4)  # their vf_coef is ½
    assert float(kl) == pytest.approx(logged["train/approx_kl"], rel=1e-4)
    for old, new, slope in zip(before, parameters, gradient, strict=True):
        torch.testing.assert_close(old - new, slope, rtol=1e-3, atol=1e-5)
