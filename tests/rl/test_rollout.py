"""Whole episodes in a batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bmd_pipeline.config.schema import FinetuneConfig, PolicyConfig, PPOConfig, RegulariserConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import PLANNED, Agent, make_agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.rollout import (
    LOOK_INTERVALS,
    Rollout,
    balanced_codes,
    compute_information,
    merge_rollouts,
    play_rounds,
    roll_out,
)
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.tasks import registry
from tests.tasks.toy import Walk


def _play(env: TaskEnv, policy: DiffusionPolicy, seed: int, max_steps: int | None = None) -> Rollout:
    agent = make_agent("dppo", policy, None, FinetuneConfig(), SteeringConfig())
    return roll_out(
        env,
        agent,
        seed=seed,
        code=torch.zeros(env.num_envs, dtype=torch.int64),
        generator=torch.Generator().manual_seed(seed),
        explore=True,
        feature_columns=(1,),
        max_steps=max_steps,
        keep_draws=True,
    )


def test_shapes_and_bookkeeping(env: TaskEnv, policy: DiffusionPolicy) -> None:
    played = _play(env, policy, 0)
    decisions = len(played.active_mask)
    assert played.cond.shape == (decisions + 1, 12, 4)
    assert played.features.shape == (decisions + 1, 12, 1)
    assert played.track.shape == (2 * decisions + 1, 12, 2)
    assert played.draws["1.samples"].shape == (decisions, 12, 3, 8)
    torch.testing.assert_close(played.features[..., 0], played.track[::2, :, 1])
    # an episode takes ceil(length / n_action_steps) decisions, without gaps
    assert torch.equal(played.active_mask.sum(dim=0), -(-played.length // 2))
    assert torch.equal(played.active_mask.long().sort(dim=0, descending=True).values.bool(), played.active_mask)
    # the point task pays 1 for success and nothing else, and every episode ends one way
    torch.testing.assert_close(played.reward.sum(dim=0), played.success.float())
    assert bool((played.success ^ played.truncated).all())
    assert bool((played.length[played.truncated] == env.spec.horizon).all())
    assert len(played.policy_inputs().cond) == int(played.active_mask.sum())


def test_the_same_seeds_give_the_same_episodes(env: TaskEnv, policy: DiffusionPolicy) -> None:
    first, second, other = _play(env, policy, 3), _play(env, policy, 3), _play(env, policy, 4)
    assert torch.equal(first.track, second.track)
    assert not torch.equal(first.track[0], other.track[0])


def test_a_curriculum_cuts_episodes_to_the_control_step(env: TaskEnv, policy: DiffusionPolicy) -> None:
    played = _play(env, policy, 0, max_steps=5)
    assert int(played.length.max()) == 5
    assert torch.equal(played.truncated, ~played.success)


def test_looking_less_often_for_the_end_appends_decisions_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is asked less often than a CPU."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(PolicyConfig(horizon=1, n_action_steps=1, n_obs_steps=1, hidden_sizes=(8,)), 1, 1)
    policy.fit_normalisers(0.9 + 0.1 * torch.rand(64, 1), torch.rand(64, 1))  # reaches 3 in three or four steps
    looking = _play(Walk(5), policy, 0)
    monkeypatch.setitem(LOOK_INTERVALS, "cpu", 5)
    late = _play(Walk(5), policy, 0)
    decisions = len(looking.active_mask)
    assert decisions == 4
    assert len(late.active_mask) == 5
    assert torch.equal(late.active_mask[:decisions], looking.active_mask)
    assert not late.active_mask[decisions:].any()
    assert torch.equal(late.track[: decisions + 1], looking.track)
    for name in ("success", "length", "truncated"):
        assert torch.equal(getattr(late, name), getattr(looking, name))
    assert torch.equal(late.reward.sum(dim=0), looking.reward.sum(dim=0))
    torch.testing.assert_close(late.policy_inputs().cond, looking.policy_inputs().cond)


def test_merging_keeps_every_episode_as_it_was(env: TaskEnv, policy: DiffusionPolicy) -> None:
    parts = [_play(env, policy, 0, max_steps=4), _play(env, policy, 1)]
    merged = merge_rollouts(parts)
    for index, part in enumerate(parts):
        rows = slice(12 * index, 12 * (index + 1))
        decisions = len(part.active_mask)
        assert torch.equal(merged.active_mask[:decisions, rows], part.active_mask)
        assert not bool(merged.active_mask[decisions:, rows].any())
        assert torch.equal(merged.track[: len(part.track), rows], part.track)
        assert torch.equal(merged.track[-1, rows], part.track[-1])
        assert torch.equal(merged.draws["1.samples"][:decisions, rows], part.draws["1.samples"])
        assert torch.equal(merged.reward.sum(dim=0)[rows], part.reward.sum(dim=0))


def test_codes_are_shared_out_evenly() -> None:
    code = balanced_codes(30, 4, torch.Generator().manual_seed(0))
    assert torch.bincount(code).tolist() == [8, 8, 7, 7]
    assert not torch.equal(code, torch.arange(30) % 4)


def test_evaluation_takes_codes_in_turn_from_the_same_starts(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    generator, modes = torch.Generator().manual_seed(0), modes_of()
    agents = make_base_agent(policy), make_commanded_agent(policy, modes)
    plain, coded = (next(play_rounds(env, agent, [5], generator)) for agent in agents)
    assert [part.shape for part in compute_information(modes.inference, coded)] == [(12,), (12,)]
    assert coded.code.tolist() == [0, 1, 2] * 4
    assert torch.equal(plain.track[0], coded.track[0]), "agents must meet the same initial states"


# corrections at every control step ---------------------------------------------------------------------


def _residual_agent(policy: DiffusionPolicy, modes: DiscoveredModes | None = None) -> Agent:
    torch.manual_seed(0)
    config = FinetuneConfig.model_validate({"residual": {"progressive_iterations": 0}})
    return make_agent("res-bmd" if modes else "res", policy, modes, config, SteeringConfig(hidden_sizes=(16,)))


def _roll_out(env: TaskEnv, agent: Agent, explore: bool, max_steps: int | None = None) -> Rollout:
    return roll_out(
        env,
        agent,
        seed=0,
        code=torch.arange(env.num_envs) % agent.num_codes,
        generator=torch.Generator().manual_seed(0),
        explore=explore,
        feature_columns=(1,),
        max_steps=max_steps,
        keep_draws=True,
    )


def test_a_residual_that_corrects_nothing_plays_as_the_base_policy(env: TaskEnv, policy: DiffusionPolicy) -> None:
    """Step by step the same episodes: plans are made when the base policy makes them, and no other draws are made."""
    agent = _residual_agent(policy)
    assert agent.residual is not None
    agent.residual.scale = 0.0
    base, corrected = (_roll_out(env, each, explore=False) for each in (make_base_agent(policy), agent))
    steps = len(base.track)
    torch.testing.assert_close(corrected.track[:steps], base.track[: len(corrected.track)])
    for name in ("success", "length", "truncated"):
        assert torch.equal(getattr(corrected, name), getattr(base, name))
    torch.testing.assert_close(corrected.reward.sum(dim=0), base.reward.sum(dim=0))
    assert (base.decisions_per_chunk, corrected.decisions_per_chunk) == (1, 2)


def test_a_residual_takes_a_decision_per_control_step_and_plans_per_chunk(
    env: TaskEnv, policy: DiffusionPolicy
) -> None:
    played = _roll_out(env, _residual_agent(policy), explore=True)
    decisions = len(played.active_mask)
    assert len(played.track) == len(played.cond) == decisions + 1
    assert torch.equal(played.active_mask.sum(dim=0), played.length)
    assert torch.equal(played.last_decision, played.length)
    torch.testing.assert_close(played.features[..., 0], played.track[..., 1])
    planned = torch.arange(decisions) % 2 == 0
    assert torch.equal(played.draws[PLANNED], planned.float()[:, None].expand(decisions, 12))
    assert played.draws["2.action"].shape == (decisions, 12, 2)


def test_an_odd_cut_leaves_a_plan_unfinished(env: TaskEnv, policy: DiffusionPolicy) -> None:
    played = _roll_out(env, _residual_agent(policy), explore=True, max_steps=5)
    assert int(played.length.max()) == len(played.active_mask) == 5
    assert played.draws[PLANNED][:, 0].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_a_steering_policy_before_a_residual_draws_once_per_plan(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """Between plans its draw is that of the plan before, and counts as certain."""
    agent = _residual_agent(policy, modes_of(form="published"))
    played = _roll_out(env, agent, explore=True)
    drawn = played.draws["0.u"]
    later = drawn[1::2]
    assert torch.equal(later, drawn[0::2][: len(later)])
    draws = {name: played.taken(value) for name, value in played.draws.items()}
    log_prob, *_ = agent.evaluate(draws, played.policy_inputs())
    assert torch.equal(log_prob[:, 0] != 0, draws[PLANNED] == 1)
    assert bool((log_prob[:, 1] != 0).all())


def test_discounts_of_a_chunk_are_shared_out_over_its_decisions(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """Two control steps per chunk: taken together they discount as the chunk does."""
    ppo = PPOConfig(gamma=0.9, gae_lambda=0.8)
    regulariser = RegulariserConfig(gamma=0.95, gae_lambda=0.5)
    reward = torch.zeros(1)
    for coded, expected in ((False, ([0.9], [0.8])), (True, ([0.9, 0.95], [0.8, 0.5]))):
        agent = _residual_agent(policy, modes_of() if coded else None)
        trainer = Trainer(env, agent, FinetuneConfig(ppo=ppo, regulariser=regulariser))
        for decisions in (1, 2, 5):
            found = trainer.learner._discounts(reward, decisions)
            for ours, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(ours**decisions, torch.tensor(theirs))


def test_an_inference_model_looks_back_as_far_as_it_does_over_chunks(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """Its history is counted in chunks, also where decisions are taken in between."""
    inference = {"hidden_sizes": (16,), "history_steps": 2}
    modes = modes_of(inference=inference)
    played = _roll_out(env, _residual_agent(policy, modes), explore=True)
    scaled = modes.inference.normalise(played.features)
    histories = played.histories(modes.inference)
    for t in range(len(scaled)):
        assert torch.equal(histories[t], torch.cat([scaled[t], scaled[max(0, t - 4)]], dim=1))


def test_workers_or_not_the_native_task_is_the_same() -> None:
    for workers in (1, 4):
        made = registry.make_env("GaussianMixture", {}, 3, num_workers=workers)
        assert torch.equal(made.reset(1), registry.make_env("GaussianMixture", {}, 3).reset(1))
