"""Disturbances: each does what it says, and leaves the rest of the environment alone."""

from __future__ import annotations

import torch

from bmd_pipeline.sim.disturbed import DisturbedEnv
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.base import TaskEnv

SPEED = 0.12


def make_env() -> TaskEnv:
    return registry.make_env("GaussianMixture", {"start_std": 0.0, "speed": SPEED}, 3)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_a_disturbance_nothing_changes() -> None:
    plain, disturbed = make_env(), DisturbedEnv(make_env(), draws())
    actions = torch.rand(3, 4, 2, generator=draws())
    assert torch.equal(plain.reset(5), disturbed.reset(5))
    one, other = plain.step_chunk(actions), disturbed.step_chunk(actions)
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(other, name)), name


def test_actions_come_late_and_none_is_lost() -> None:
    env = DisturbedEnv(make_env(), draws(), action_delay=3)
    for _ in range(2):  # a new episode begins without the actions of the last one
        env.reset(0)
        env.step_chunk(torch.tensor([[[0.1, 0.0], [0.2, 0.0]]]).expand(3, -1, -1))
        path = env.step_chunk(torch.tensor([[[0.3, 0.0], [0.0, 0.4]]]).expand(3, -1, -1)).track_path
        torch.testing.assert_close(path[:, 0, 0] / SPEED, torch.tensor([0.0, 0.1]))
        path = env.step(torch.zeros(3, 2)).track_path
        torch.testing.assert_close(path[-1, 0] / SPEED, torch.tensor([0.3, 0.0]))


def test_actions_are_scaled_and_locked_and_the_callers_are_left_alone() -> None:
    actions = torch.full((3, 1, 2), 0.5)
    env = DisturbedEnv(make_env(), draws(), action_scale=0.5, locked_action=1)
    env.reset(0)
    moved = env.step_chunk(actions)
    torch.testing.assert_close(moved.track_path[-1, 0] / SPEED, torch.tensor([0.25, 0.0]))
    assert torch.equal(actions, torch.full((3, 1, 2), 0.5))


def test_noise_is_on_what_is_seen_and_not_on_what_happens() -> None:
    env = DisturbedEnv(
        registry.make_env("GaussianMixture", {"start_std": 0.0}, 4000), draws(), obs_noise=torch.tensor([0.1, 0.0])
    )
    first = env.reset(0)
    moved = env.step_chunk(torch.full((4000, 2, 2), 0.1))
    for obs in (first, moved.obs - env.track(), moved.obs_path[0] - moved.track_path[0]):
        torch.testing.assert_close(obs.std(dim=0), torch.tensor([0.1, 0.0]), atol=0.005, rtol=0)
    assert float(moved.track_path[..., 0].std(dim=1).max()) < 1e-6
