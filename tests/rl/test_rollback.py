"""Iterations that diverge are rolled back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bmd_pipeline.config.schema import FinetuneConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv, Transition
from bmd_pipeline.errors import TaskError, TrainingError
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_agent
from bmd_pipeline.rl.rollout import Rollout
from bmd_pipeline.rl.trainer import Trainer, pack_trainer, unpack_trainer


@pytest.fixture
def trainer(env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]) -> Trainer:
    torch.manual_seed(2)
    modes = modes_of()
    agent = make_agent("dsrl-bmd", policy, modes, FinetuneConfig(), SteeringConfig(hidden_sizes=(16,)))
    ppo = {"minibatch_size": 32, "value_hidden_sizes": (16,)}
    return Trainer(env, agent, FinetuneConfig.model_validate({"ppo": ppo, "obedience": 0.95}))


def iterate(trainer: Trainer, iteration: int = 0) -> dict[str, float]:
    trainer.remember()
    generator = torch.Generator().manual_seed(iteration)
    return trainer.iterate(iteration=iteration, seed=iteration, generator=generator)


def rates(trainer: Trainer) -> list[float]:
    return [group["lr"] for optimizer in trainer.learner.optimizers.values() for group in optimizer.param_groups]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Diverging:
    """Makes what the trainer learns first end in NaN weights."""

    def __init__(self, trainer: Trainer, times: int) -> None:
        self.trainer, self.times = trainer, times
        self.learn = trainer.learn
        self.starts: list[dict[str, torch.Tensor]] = []
        self.played: list[Rollout] = []
        trainer.learn = self  # type: ignore[method-assign,assignment]

    def __call__(self, played: Rollout, **options: Any) -> dict[str, float]:
        self.starts.append(pack_trainer(self.trainer)[0])
        self.played.append(played)
        metrics = self.learn(played, **options)
        if len(self.starts) <= self.times:
            with torch.no_grad():
                next(self.trainer.learner.critic.parameters()).fill_(torch.nan)
        return metrics


def test_a_sound_iteration_passes(trainer: Trainer) -> None:
    trainer._warn = pytest.fail
    assert iterate(trainer)["losses/policy_steps"] > 0
    assert trainer.rollbacks == 0


def test_a_diverged_iteration_is_tried_again_from_the_same_state_with_half_the_step(trainer: Trainer) -> None:
    told: list[str] = []
    trainer._warn = told.append
    iterate(trainer)
    before = rates(trainer)
    diverging = Diverging(trainer, times=2)
    iterate(trainer, 1)
    first, second, third = diverging.starts
    assert same(first, second)
    assert same(second, third)
    assert all(played is diverging.played[0] for played in diverging.played)  # nothing is played again
    assert rates(trainer) == [rate / 4 for rate in before]
    assert trainer.rollbacks == 2
    assert told[0] == (
        "iteration 2 diverged (a weight is not finite) and was rolled back; the learning rates are halved "
        "(rollback 1 of at most 3)"
    )
    iterate(trainer, 2)
    assert rates(trainer) == [rate / 4 for rate in before]  # for good


def test_an_adaptive_learning_rate_never_rises_above_what_a_rollback_left(
    env: TaskEnv, policy: DiffusionPolicy
) -> None:
    torch.manual_seed(2)
    agent = make_agent("dsrl", policy, None, FinetuneConfig(), SteeringConfig(hidden_sizes=(16,)))
    ppo = {"minibatch_size": 32, "learning_rate": 1e-5, "target_kl": 1.0, "learning_rate_schedule": "adaptive"}
    adaptive = Trainer(env, agent, FinetuneConfig.model_validate({"ppo": ppo}))
    Diverging(adaptive, 1)
    for iteration in range(4):
        iterate(adaptive, iteration)
    assert adaptive.rollbacks == 1
    assert rates(adaptive)[0] == pytest.approx(5e-6)


def test_it_gives_up_with_the_reason_and_leaves_sound_weights(trainer: Trainer) -> None:
    told: list[str] = []
    trainer._warn = told.append
    before = pack_trainer(trainer)[0]
    Diverging(trainer, times=9)
    with pytest.raises(
        TrainingError,
        match=r"diverged at iteration 1: a weight is not finite; 3 rollbacks, .* lower finetune\.ppo\.learning_rate",
    ):
        iterate(trainer)
    assert len(told) == 3
    assert same(pack_trainer(trainer)[0], before)


def test_a_loss_that_is_not_finite_counts(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trainer, "learn", lambda *_, **__: {"losses/inference": float("inf"), "rollout/x": float("nan")}
    )
    with pytest.raises(TrainingError, match="losses/inference is inf"):
        iterate(trainer)


def test_what_is_wrong_with_the_task_is_not_tried_again(trainer: Trainer, env: TaskEnv) -> None:
    env.pay.fill_(float("nan"))  # type: ignore[attr-defined]
    trainer._warn = pytest.fail
    with pytest.raises(TaskError, match="the reward was nan at step"):
        iterate(trainer)


@pytest.mark.parametrize("value", [1e20, float("nan")])
def test_one_glitch_is_dropped_and_counted_and_training_goes_on(
    trainer: Trainer, env: TaskEnv, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    step_chunk, told = env.step_chunk, list[str]()

    def glitch(actions: torch.Tensor) -> Transition:
        moved = step_chunk(actions)
        moved.reward[0, 3] = value
        return moved

    monkeypatch.setattr(env, "step_chunk", glitch)
    trainer._warn = lambda *texts: told.append(texts[0])
    metrics = iterate(trainer)
    assert metrics["rollout/dropped_episodes"] == 1.0
    assert abs(metrics["rollout/episode_return"]) <= 1.0
    assert trainer.rollbacks == 0
    assert len(told) == 1
    assert "the reward was not finite" in told[0]


def test_a_trainer_goes_on_bit_for_bit(trainer: Trainer) -> None:
    trainer._warn = pytest.fail
    # the untrained policy hardly succeeds: a rollout in which no code was obeyed gives λ something to go on from
    code = torch.arange(48) % 3
    trainer.learner.regulariser.update(torch.zeros(48, dtype=torch.bool), torch.ones(48, dtype=torch.bool), code)
    iterate(trainer)
    tensors, values = pack_trainer(trainer)
    iterate(trainer, 1)
    straight, _ = pack_trainer(trainer)
    unpack_trainer(trainer, tensors, values)
    assert same(pack_trainer(trainer)[0], tensors)
    iterate(trainer, 1)
    assert same(pack_trainer(trainer)[0], straight)
    assert float(trainer.learner.regulariser.weights.max()) > 0.0
