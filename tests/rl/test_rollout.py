"""Whole episodes in a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bmd_pipeline.config.pretrain import PolicyConfig
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agents import make_base_agent, make_commanded_agent
from bmd_pipeline.rl.rollout import LOOK_INTERVALS, Rollout, balanced_codes, merge_rollouts, play_episodes, roll_out
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.base import TaskEnv
from tests.tasks.toy import Walk


def _play(env: TaskEnv, policy: DiffusionPolicy, seed: int, max_steps: int | None = None) -> Rollout:
    return roll_out(
        env,
        make_base_agent(policy),
        seed=seed,
        code=torch.zeros(env.num_envs, dtype=torch.int64),
        generator=torch.Generator().manual_seed(seed),
        explore=True,
        feature_columns=(1,),
        max_steps=max_steps,
        keep_record=True,
    )


def test_shapes_and_bookkeeping(env: TaskEnv, policy: DiffusionPolicy) -> None:
    played = _play(env, policy, 0)
    decisions = len(played.alive)
    assert played.cond.shape == (decisions + 1, 12, 4)
    assert played.features.shape == (decisions + 1, 12, 1)
    assert played.track.shape == (2 * decisions + 1, 12, 2)
    assert played.record["0.w"].shape == (decisions, 12, 8)
    torch.testing.assert_close(played.features[..., 0], played.track[::2, :, 1])
    # an episode takes ceil(length / n_action_steps) decisions, without gaps
    assert torch.equal(played.alive.sum(dim=0), -(-played.length // 2))
    assert torch.equal(played.alive.long().sort(dim=0, descending=True).values.bool(), played.alive)
    # the point task pays 1 for success and nothing else, and every episode ends one way
    torch.testing.assert_close(played.reward.sum(dim=0), played.success.float())
    assert bool((played.success ^ played.timed_out).all())
    assert bool((played.length[played.timed_out] == env.spec.horizon).all())
    assert len(played.situations().cond) == int(played.alive.sum())


def test_the_same_seeds_give_the_same_episodes(env: TaskEnv, policy: DiffusionPolicy) -> None:
    first, second, other = _play(env, policy, 3), _play(env, policy, 3), _play(env, policy, 4)
    assert torch.equal(first.track, second.track)
    assert not torch.equal(first.track[0], other.track[0])


def test_a_curriculum_cuts_episodes_to_the_control_step(env: TaskEnv, policy: DiffusionPolicy) -> None:
    played = _play(env, policy, 0, max_steps=5)
    assert int(played.length.max()) == 5
    assert torch.equal(played.timed_out, ~played.success)


def test_looking_less_often_for_the_end_appends_decisions_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is asked less often than a CPU."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicyConfig(horizon=1, n_action_steps=1, n_obs_steps=1, hidden_sizes=(8,)), 1, 1)
    policy.fit_normalisers(0.9 + 0.1 * torch.rand(64, 1), torch.rand(64, 1))  # reaches 3 in three or four steps
    looking = _play(Walk(5, auto_reset=False), policy, 0)
    monkeypatch.setitem(LOOK_INTERVALS, "cpu", 5)
    late = _play(Walk(5, auto_reset=False), policy, 0)
    decisions = len(looking.alive)
    assert decisions == 4
    assert len(late.alive) == 5
    assert torch.equal(late.alive[:decisions], looking.alive)
    assert not late.alive[decisions:].any()
    assert torch.equal(late.track[: decisions + 1], looking.track)
    for name in ("success", "length", "timed_out"):
        assert torch.equal(getattr(late, name), getattr(looking, name))
    assert torch.equal(late.reward.sum(dim=0), looking.reward.sum(dim=0))
    torch.testing.assert_close(late.situations().cond, looking.situations().cond)


def test_merging_keeps_every_episode_as_it_was(env: TaskEnv, policy: DiffusionPolicy) -> None:
    parts = [_play(env, policy, 0, max_steps=4), _play(env, policy, 1)]
    merged = merge_rollouts(parts)
    for index, part in enumerate(parts):
        rows = slice(12 * index, 12 * (index + 1))
        decisions = len(part.alive)
        assert torch.equal(merged.alive[:decisions, rows], part.alive)
        assert not bool(merged.alive[decisions:, rows].any())
        assert torch.equal(merged.track[: len(part.track), rows], part.track)
        assert torch.equal(merged.track[-1, rows], part.track[-1])
        assert torch.equal(merged.record["0.w"][:decisions, rows], part.record["0.w"])
        assert torch.equal(merged.reward.sum(dim=0)[rows], part.reward.sum(dim=0))


def test_codes_are_shared_out_evenly() -> None:
    code = balanced_codes(30, 4, torch.Generator().manual_seed(0))
    assert torch.bincount(code).tolist() == [8, 8, 7, 7]
    assert not torch.equal(code, torch.arange(30) % 4)


def test_evaluation_reports_information_only_with_codes(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = play_episodes(env, make_base_agent(policy), seed=5, codes=None, generator=generator)
    coded = play_episodes(env, make_commanded_agent(policy, modes_of()), seed=5, codes=None, generator=generator)
    assert plain.information is None
    assert coded.information is not None
    assert coded.information.shape == (12,)
    assert coded.code.tolist() == [0, 1, 2] * 4
    assert torch.equal(plain.track[0], coded.track[0]), "agents must meet the same initial states"


def test_held_noise_is_released_once_the_behaviour_has_moved(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    modes = modes_of(strategy="held")
    modes.inference.std.fill_(0.5)
    played = roll_out(
        env,
        make_commanded_agent(policy, modes),
        seed=0,
        code=torch.arange(12) % 3,
        generator=torch.Generator().manual_seed(0),
        explore=False,
    )
    distance = modes.config.commit.distance
    scaled = modes.inference.normalise(played.features)
    moved = (scaled - scaled[0]).abs().amax(dim=2)[:-1] > distance
    ever = moved.long().cummax(dim=0).values.bool()
    assert torch.equal(played.holding, ~ever)
    assert bool(ever.any())
    assert not bool(ever[0].any())


def test_workers_or_not_the_native_task_is_the_same() -> None:
    for workers in (1, 4):
        made = registry.make_env("GaussianMixture", {}, 3, num_workers=workers)
        assert torch.equal(made.reset(1), registry.make_env("GaussianMixture", {}, 3).reset(1))
