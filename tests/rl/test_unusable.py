"""Episodes whose numbers can't be used, and observations far from the demonstrations'."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, Transition
from bmd_pipeline.errors import ArtifactError, TaskError
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_base_agent
from bmd_pipeline.rl.rollout import FAR, LOOK_INTERVALS, Rollout, merge_rollouts, roll_out
from bmd_pipeline.tasks import registry
from tests.rl.host_reads import count_reads

STEP = 5


class Glitching(TaskEnv):
    """A task that shows one value in the place of another after its fifth control step, in some environments."""

    def __init__(self, env: TaskEnv, field: str, value: float, rows: list[int]) -> None:
        self.env, self.field, self.value, self.rows = env, field, value, rows
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device
        self.received: list[Tensor] = []
        self.done = 0

    def reset(self, seed: int) -> Tensor:
        self.done = 0
        return self.env.reset(seed)

    def track(self) -> Tensor:
        return self.env.track()

    def step_chunk(self, actions: Tensor) -> Transition:
        self.received.append(actions)
        moved, index = self.env.step_chunk(actions), STEP - 1 - self.done
        self.done += actions.shape[1]
        if 0 <= index < actions.shape[1]:
            values = getattr(moved, self.field).clone()
            for row in self.rows:
                values[index, row, ...] = self.value
            moved = replace(moved, **{self.field: values}, success=torch.ones_like(moved.success))
        return moved

    def close(self) -> None:
        self.env.close()


def play(env: TaskEnv, policy: DiffusionPolicy, warnings: list[tuple[str, str]] | None = None) -> Rollout:
    told = [] if warnings is None else warnings
    return roll_out(
        env,
        make_base_agent(policy),
        seed=3,
        code=torch.zeros(env.num_envs, dtype=torch.int64),
        generator=torch.Generator().manual_seed(0),
        explore=True,
        keep_draws=True,
        warn=lambda *texts: told.append(texts),
    )


PLACES = {"obs_path": "observation column 0", "track_path": "track column 'x'", "reward": "the reward"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e20, -3e12])
@pytest.mark.parametrize("field", PLACES)
def test_a_glitch_costs_one_episode_and_is_named(
    env: TaskEnv, policy: DiffusionPolicy, field: str, value: float
) -> None:
    warnings: list[tuple[str, str]] = []
    glitching = Glitching(env, field, value, [7])
    played = play(glitching, policy, warnings)
    plain = play(Glitching(env, field, 0.0, []), policy)
    assert played.dropped.nonzero()[:, 0].tolist() == [7]
    assert not bool(played.success[7])
    assert not bool(played.active_mask[:, 7].any())
    assert int(played.length[7]) >= 1
    for name, values in vars(played).items():
        if isinstance(values, Tensor):
            assert bool((values.double().abs() <= 1e12).all()), name
    others = torch.arange(12) != 7
    for name in ("active_mask", "reward", "track", "cond", "decision_track"):
        assert torch.equal(getattr(played, name)[:, others], getattr(plain, name)[:, others])
    assert all(bool(actions.isfinite().all()) for actions in glitching.received)  # the simulator goes on soundly
    assert len(warnings) == 1
    what, example = warnings[0]
    assert PLACES[field] in what
    assert f"{value:g} at step {STEP} of environment 7, seed 3" in example


def test_merging_keeps_what_was_dropped(env: TaskEnv, policy: DiffusionPolicy) -> None:
    parts = [play(Glitching(env, "reward", math.nan, [row]), policy) for row in (2, 5)]
    assert merge_rollouts(parts).dropped.nonzero()[:, 0].tolist() == [2, 12 + 5]


@pytest.mark.parametrize("field", PLACES)
def test_a_task_that_does_it_often_is_refused(env: TaskEnv, policy: DiffusionPolicy, field: str) -> None:
    with pytest.raises(TaskError) as caught:
        play(Glitching(env, field, math.nan, [4, 9]), policy)
    assert f"{PLACES[field]} was nan at step {STEP} of environment 4, seed 3; 2 of 12 episodes" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_there_at_the_start_is_named_as_such(
    env: TaskEnv, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = env.reset(3)
    start[6, 1] = math.nan
    monkeypatch.setattr(env, "reset", lambda seed: start)
    warnings: list[tuple[str, str]] = []
    assert play(env, policy, warnings).dropped.nonzero()[:, 0].tolist() == [6]
    assert "observation column 1" in warnings[0][0]
    assert "at step 0 of environment 6" in warnings[0][1]


def test_weights_are_blamed_for_actions_and_not_the_task(env: TaskEnv, policy: DiffusionPolicy) -> None:
    with torch.no_grad():
        next(policy.denoiser.parameters()).fill_(math.nan)
    with pytest.raises(ArtifactError, match="the policy's actions are not finite"):
        play(env, policy)


def test_the_reach_of_observations_is_measured_by_column(env: TaskEnv, policy: DiffusionPolicy) -> None:
    normaliser = policy.obs_normaliser
    played = play(env, policy)
    # the task shows its position, which is its track
    distance = ((played.track - normaliser.mean[:2]) / normaliser.std[:2]).abs().amax(dim=0)
    torch.testing.assert_close(played.reach, distance)


def test_observations_of_another_unit_are_told_once_with_their_column(env: TaskEnv, policy: DiffusionPolicy) -> None:
    warnings: list[tuple[str, str]] = []
    play(env, policy, warnings)
    assert warnings == []
    policy.obs_normaliser.std[1] /= 1000.0  # as if the second column had been demonstrated in thousandths
    played = play(env, policy, warnings)
    assert float(played.reach[:, 1].median()) > FAR
    assert len(warnings) == 1
    assert "observation column 1 is far from the demonstrations'" in warnings[0][0]


def test_checking_reads_from_a_device_once_a_rollout(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read makes the host wait for the device."""
    env = registry.make_env("GaussianMixture", {}, 4)
    monkeypatch.setitem(LOOK_INTERVALS, "cpu", 10**6)
    assert count_reads("bmd_pipeline.rl.rollout", lambda: play(env, policy)) == 1
