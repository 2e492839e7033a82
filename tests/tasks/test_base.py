"""The bookkeeping that every task inherits: ends, freezing, chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.environments.base import play
from bmd_pipeline.errors import TaskError
from tests.tasks.toy import SPEC, Walk


def make_walk(num_envs: int = 3, seed: int = 0) -> tuple[Walk, Tensor]:
    env = Walk(num_envs)
    return env, env.reset(seed)


def constant(steps: int, *speeds: float) -> Tensor:
    """Each environment repeats its speed, (num_envs, steps, 1)."""
    return torch.tensor(speeds)[:, None, None].expand(-1, steps, 1)


def test_an_episode_that_ends_inside_a_chunk_freezes_there() -> None:
    env, obs = make_walk()
    moved = env.step_chunk(constant(5, 1.0, 0.5, -1.0))
    start = obs[:, 0]
    expected = torch.tensor([[1, 2, 3, 3, 3], [0.5, 1, 1.5, 2, 2.5], [-1, -2, -3, -4, -4]]).T
    # The third starts a little right of zero, so it needs a fourth step to pass -3.
    torch.testing.assert_close(moved.obs_path[..., 0], expected + start)
    torch.testing.assert_close(moved.reward.sum(dim=0), torch.tensor([3.0, 2.5, -4.0]))
    assert moved.steps.tolist() == [3, 5, 4]
    assert moved.terminated.tolist() == [True, False, True]
    assert moved.success.tolist() == [True, False, False]
    assert not moved.truncated.any()
    assert moved.done.tolist() == [True, False, True]
    assert torch.equal(moved.obs, moved.obs_path[-1])


def test_frozen_episodes_end_once_and_stay() -> None:
    env, _ = make_walk()
    first = env.step_chunk(constant(4, 1.0, 0.1, 0.1))
    later = env.step_chunk(constant(2, -1.0, 0.1, 0.1))
    torch.testing.assert_close(later.obs_path[:, 0], first.obs_path[-1:, 0].expand(2, 1))
    assert later.reward[:, 0].tolist() == [0, 0]
    assert later.steps.tolist() == [0, 2, 2]
    assert not later.done[0]
    assert not later.success[0]


def test_time_limit_truncates_exactly_at_the_horizon() -> None:
    env, _ = make_walk()
    assert not env.step_chunk(constant(SPEC.horizon - 1, 0.1, 0.1, 0.1)).done.any()
    last = env.step(torch.zeros(3, 1))
    assert last.truncated.all()
    assert not last.terminated.any()
    assert last.obs.shape == (3, 1)


def test_ending_by_itself_at_the_time_limit_is_no_truncation() -> None:
    env, obs = make_walk(num_envs=1)
    env.step_chunk(constant(SPEC.horizon - 1, 0.5))
    last = env.step(3.0 - obs - 0.5 * (SPEC.horizon - 1) + 1e-3)
    assert last.terminated.item()
    assert last.success.item()
    assert not last.truncated.item()


def test_a_reset_starts_ended_episodes_anew() -> None:
    env, _ = make_walk()
    env.step_chunk(constant(4, 1.0, 0.1, 0.1))
    obs = env.reset(1)
    assert torch.equal(env.track(), torch.cat([obs, torch.zeros(3, 1)], dim=1))
    after = env.step_chunk(constant(SPEC.horizon, 0.1, 0.1, 0.1))
    assert after.truncated.all()
    assert after.steps.tolist() == [SPEC.horizon] * 3


def test_a_chunk_equals_its_single_steps() -> None:
    actions = torch.rand(3, 6, 1, generator=torch.Generator().manual_seed(1)) * 2
    env, _ = make_walk()
    whole = env.step_chunk(actions)
    env.reset(0)
    single = [env.step(actions[:, i]) for i in range(6)]
    for name in ("obs_path", "track_path", "reward"):
        torch.testing.assert_close(getattr(whole, name), torch.cat([getattr(step, name) for step in single]))
    for name in ("terminated", "truncated", "success"):
        assert torch.equal(getattr(whole, name), torch.stack([getattr(step, name) for step in single]).any(dim=0))
    assert torch.equal(whole.steps, torch.stack([step.steps for step in single]).sum(dim=0))


def test_actions_are_clipped() -> None:
    env, obs = make_walk()
    torch.testing.assert_close(env.step(torch.full((3, 1), 7.0)).obs, obs + 1)


def test_same_seed_same_start() -> None:
    env, obs = make_walk(seed=5)
    env.step_chunk(constant(6, 1.0, 1.0, 1.0))
    torch.testing.assert_close(env.reset(5), obs)
    assert not torch.equal(env.reset(6), obs)


def test_an_expert_that_abandons_an_episode_at_once_shows_an_empty_failure() -> None:
    env, obs = make_walk(num_envs=1)
    shown = play(env, obs, lambda: None, np.zeros((SPEC.horizon, 1)), behaviour=0)
    assert (shown.obs.shape, shown.action.shape) == ((0, 1), (0, 1))
    assert not shown.success


def test_misuse_is_refused_with_the_numbers() -> None:
    with pytest.raises(TaskError, match="num_envs must be >= 1, got 0"):
        Walk(0)
    env = Walk(2)
    with pytest.raises(TaskError, match=r"Toy: call reset\(seed\) before stepping"):
        env.step(torch.zeros(2, 1))
    env.reset(0)
    with pytest.raises(TaskError, match=r"actions must be \(2, n, 1\), got \(3, 1, 1\)"):
        env.step(torch.zeros(3, 1))
