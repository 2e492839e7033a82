"""Codes are drawn by what they lack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bmd_pipeline.config.schema import FinetuneConfig, PPOConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_agent
from bmd_pipeline.rl.rollout import Rollout
from bmd_pipeline.rl.trainer import CodeSampler, Trainer, pack_trainer, unpack_trainer


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=12), st.integers(0, 60), st.integers(0, 1000))
def test_every_code_is_drawn_and_every_environment_has_one(success: list[float], more: int, seed: int) -> None:
    """A quarter of the environments is shared out equally, and at least one each."""
    sampler, num_codes = CodeSampler(len(success)), len(success)
    sampler.success = torch.tensor(success)
    code = sampler.draw(num_codes + more, torch.Generator().manual_seed(seed))
    count = torch.bincount(code, minlength=num_codes)
    assert count.shape == (num_codes,)
    assert int(count.sum()) == num_codes + more
    assert int(count.min()) >= max(1, (num_codes + more) // (4 * num_codes))


def test_weak_codes_are_drawn_the_more_often_the_more_they_fail() -> None:
    sampler = CodeSampler(4)
    sampler.success = torch.tensor([1.0, 0.9, 0.5, 0.0])
    count = torch.bincount(sampler.draw(40_000, torch.Generator().manual_seed(0)), minlength=4)
    need = torch.tensor([0.1, 0.2, 0.6, 1.1])
    torch.testing.assert_close(count.float(), 2500 + 30_000 * need / need.sum(), rtol=0.05, atol=0)


def test_codes_that_do_equally_well_are_drawn_equally_often() -> None:
    count = torch.bincount(CodeSampler(4).draw(40_000, torch.Generator().manual_seed(0)), minlength=4)
    torch.testing.assert_close(count.float(), torch.full((4,), 10_000.0), rtol=0.05, atol=0)


def test_success_is_a_running_mean_of_rollouts() -> None:
    sampler = CodeSampler(2)
    for _ in range(3):
        sampler.update(torch.tensor([True, True, False, False]), torch.tensor([0, 0, 0, 1]))
    expected = [2 / 3 + (0.5 - 2 / 3) * 0.7**3, 0.5 * 0.7**3]
    assert sampler.success.tolist() == pytest.approx(expected)


def make_trainer(env: TaskEnv, policy: DiffusionPolicy, modes: DiscoveredModes, **settings: bool) -> Trainer:
    torch.manual_seed(0)
    agent = make_agent("dppo-bmd", policy, modes, FinetuneConfig(), SteeringConfig())
    ppo = PPOConfig(minibatch_size=32, value_hidden_sizes=(16,))
    return Trainer(env, agent, FinetuneConfig(ppo=ppo, **settings))


def test_a_trainer_feeds_what_it_has_seen_and_goes_on_so(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    first, second = (make_trainer(env, policy, modes_of()) for _ in range(2))
    assert first.code_sampler is not None
    assert second.code_sampler is not None
    first.code_sampler.success = torch.tensor([0.9, 0.1, 0.4])
    seen = first.play(iteration=0, seed=0, generator=torch.Generator().manual_seed(0))
    first.learn(seen, generator=torch.Generator().manual_seed(0))
    rates = torch.stack([seen.success[seen.code == code].float().mean() for code in range(3)])
    torch.testing.assert_close(first.code_sampler.success, torch.tensor([0.63, 0.07, 0.28]) + 0.3 * rates)
    tensors, values = pack_trainer(first)
    unpack_trainer(second, tensors, values)
    assert torch.equal(second.code_sampler.success, first.code_sampler.success)
    codes = [
        each.play(iteration=1, seed=1, generator=torch.Generator().manual_seed(1)).code for each in (first, second)
    ]
    assert torch.equal(*codes)
    first.code_sampler.success += 1.0  # what was packed is a copy
    assert float(tensors["code_success"].max()) <= 1.0


def test_only_taught_codes_are_fed_and_only_if_asked(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    for form, balance_codes in (("coded", False), ("published", True)):
        trainer = make_trainer(env, policy, modes_of(form=form), balance_codes=balance_codes)
        assert trainer.code_sampler is None
        code = trainer.play(iteration=0, seed=0, generator=torch.Generator().manual_seed(0)).code
        assert torch.bincount(code).tolist() == [4, 4, 4]
        assert "code_success" not in pack_trainer(trainer)[0]


def test_pay_only_obeyed_withholds_gains_of_another_codes_behaviour_and_no_costs(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes are drawn by the success of obeyed episodes, and the intrinsic reward is that of any other trainer."""
    shown = torch.tensor([0, 1, 2, 0] * 3)
    monkeypatch.setattr("bmd_pipeline.rl.trainer.read_behaviours", lambda modes, played: shown)
    plain, told = make_trainer(env, policy, modes_of()), make_trainer(env, policy, modes_of(), pay_only_obeyed=True)
    seen = told.play(iteration=0, seed=0, generator=torch.Generator().manual_seed(0))
    seen = replace(seen, reward=torch.randn(seen.reward.shape), success=torch.ones_like(seen.success))
    own = shown == seen.code
    assert 0 < int(own.sum()) < own.numel()
    rewards = []
    for trainer in (plain, told):
        learns_from = trainer.learner._batch

        def keep(played: Rollout, reward: Tensor, max_steps: int | None, batch: Any = learns_from) -> Any:
            rewards.append(reward)
            return batch(played, reward, max_steps)

        monkeypatch.setattr(trainer.learner, "_batch", keep)
        trainer.learn(seen, generator=torch.Generator().manual_seed(0))
    free, paid = rewards
    torch.testing.assert_close(free[..., 0], seen.reward)
    torch.testing.assert_close(paid[:, own, 0], seen.reward[:, own])
    torch.testing.assert_close(paid[:, ~own, 0], seen.reward[:, ~own].clamp(max=0.0))
    torch.testing.assert_close(paid[..., 1], free[..., 1])
    assert told.code_sampler is not None
    shares = torch.stack([own[seen.code == code].float().mean() for code in range(3)])
    torch.testing.assert_close(told.code_sampler.success, 0.7 * torch.full((3,), 0.5) + 0.3 * shares)
