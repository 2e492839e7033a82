"""The critic on a ring whose values are known in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import FinetuneConfig, PolicyConfig
from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_base_agent
from bmd_pipeline.rl.ppo import Critic
from bmd_pipeline.rl.trainer import Trainer

PLACES, LIMIT, GAMMA = 4, 2, 0.8
SPEC = TaskSpec("Ring", PLACES, 1, ("place", "lap"), ("place", "lap"), LIMIT)


class Ring(VectorTask):
    """Walks round a ring whatever the action, from a random place on; coming to place 0 pays 1."""

    def __init__(self, num_envs: int, continuing: bool) -> None:
        super().__init__(num_envs)
        self.spec = replace(SPEC, continuing=continuing)
        self.place = torch.zeros(num_envs, dtype=torch.int64)
        self.generator = torch.Generator()

    def _reset(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self.place = torch.randint(PLACES, (self.num_envs,), generator=self.generator)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.place = torch.where(active, (self.place + 1) % PLACES, self.place)
        never = torch.zeros_like(active)
        return (self.place == 0).float(), never, never

    def _observe(self) -> Tensor:
        return torch.eye(PLACES)[self.place]

    def track(self) -> Tensor:
        return torch.zeros(self.num_envs, 2)


def learn(continuing: bool, max_steps: int | None = None) -> Tensor:
    """Trains the critic alone; returns its values (decisions, places)."""
    torch.manual_seed(0)
    config = PolicyConfig(horizon=1, n_action_steps=1, n_obs_steps=1, hidden_sizes=(8,))
    agent = make_base_agent(DiffusionPolicy(config, obs_dim=PLACES, action_dim=1))
    ppo = {"gamma": GAMMA, "epochs": 10, "value_learning_rate": 1e-2, "value_hidden_sizes": (64, 64)}
    env = Ring(64, continuing)
    trainer = Trainer(env, agent, FinetuneConfig.model_validate({"ppo": ppo}))
    generator = torch.Generator().manual_seed(0)
    for iteration in range(40):
        trainer.iterate(iteration=iteration, seed=iteration, generator=generator, max_steps=max_steps, policy=False)
    cond = torch.eye(PLACES).expand(LIMIT, -1, -1)
    code = torch.zeros(PLACES, dtype=torch.int64)
    inputs = trainer.learner.critic.inputs(cond, torch.zeros(LIMIT, PLACES, 2), code, LIMIT)
    return trainer.learner.critic(inputs).detach().squeeze(2)


def value(place: int, steps_left: float) -> float:
    """Σ γ^k over the steps k at which place 0 is reached."""
    first = PLACES - 1 - place
    return sum(GAMMA**k for k in range(first, int(min(steps_left, 200)), PLACES))


def test_the_time_limit_of_a_task_ends_all_value() -> None:
    expected = torch.tensor([[value(place, LIMIT - t) for place in range(PLACES)] for t in range(LIMIT)])
    torch.testing.assert_close(learn(continuing=False), expected, atol=0.06, rtol=0)


def test_a_curriculum_shows_the_critic_the_time_that_is_left() -> None:
    """Episodes cut to one step have one step left, as in the last step of a whole one."""
    expected = torch.tensor([value(place, 1) for place in range(PLACES)])
    torch.testing.assert_close(learn(continuing=False, max_steps=1)[LIMIT - 1], expected, atol=0.06, rtol=0)


def test_the_tracks_scale_is_fixed_by_the_first_rollout_of_full_length() -> None:
    critic = Critic(1, 2, 1, 1, (8,))
    active_mask = torch.ones(4, 3, dtype=torch.bool)
    short, whole = torch.rand(5, 3, 2), 10.0 * torch.rand(5, 3, 2)
    short[..., 1] = 0.3  # what doesn't move yet must not be blown up when it does
    critic.fit_scale(short, active_mask, last=False)
    assert critic.track_std[1] == 1.0
    critic.fit_scale(whole, active_mask)
    torch.testing.assert_close(critic.track_std, whole[1:].flatten(0, 1).std(dim=0))
    critic.fit_scale(short, active_mask)
    torch.testing.assert_close(critic.track_mean, whole[1:].flatten(0, 1).mean(dim=0))


@pytest.mark.parametrize("max_steps", [None, 1])
def test_a_continuing_task_is_worth_the_same_at_any_time(max_steps: int | None) -> None:
    """γ^first / (1 − γ^PLACES), though no episode is longer than the limit, or than the curriculum allows."""
    values = learn(continuing=True, max_steps=max_steps)
    expected = torch.tensor([GAMMA ** (PLACES - 1 - place) / (1 - GAMMA**PLACES) for place in range(PLACES)])
    assert expected[0] == pytest.approx(value(0, float("inf")))
    torch.testing.assert_close(values, expected.expand(LIMIT, -1), atol=0.06, rtol=0)


def test_the_final_observation_of_a_continuing_task_is_among_those_the_critic_trains_on() -> None:
    env = Ring(64, continuing=True)
    path = [env.reset(0), *env.step_chunk(torch.zeros(64, LIMIT, 1)).obs_path]
    for sees_time, known in ((False, True), (True, False)):
        critic = Critic(PLACES, 2, 1, 1, (8,), sees_time=sees_time)
        code = torch.zeros(64, dtype=torch.int64)
        inputs = critic.inputs(torch.stack(path), torch.zeros(LIMIT + 1, 64, 2), code, LIMIT)
        trained = {tuple(row) for row in inputs[:-1].flatten(0, 1).tolist()}
        final = {tuple(row) for row in inputs[-1].tolist()}
        assert (final <= trained) is known
