"""The point task, its expert and its labels."""

from __future__ import annotations

import pytest
import torch

from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.gaussian_mixture.env import GOALS


def _walk(reward: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four environments walk straight to one goal each."""
    env = registry.make_env("GaussianMixture", {"reward": reward}, 4)
    env.reset(0)
    track, length = [env.track()], torch.zeros(4, dtype=torch.int64)
    paid, success = torch.zeros(4), torch.zeros(4, dtype=torch.bool)
    for _ in range(12):
        moved = env.step(torch.tensor(GOALS))
        track.append(moved.track_path[-1])
        length += moved.steps
        paid += moved.reward[0]
        success |= moved.success
    return torch.stack(track), length, paid, success


@pytest.mark.parametrize(("reward", "expected"), [("equal", [1, 1, 1, 1]), ("shifted", [2, 1, 1, 1])])
def test_goals_pay_once_and_the_favoured_one_double(reward: str, expected: list[float]) -> None:
    track, length, paid, success = _walk(reward)
    assert bool(success.all())
    assert paid.tolist() == expected
    assert int(length.max()) <= 9, "at 0.12 a step the goals are eight steps away"
    (labelling,) = registry.load_labellings("GaussianMixture")
    assert torch.equal(labelling.label(track, length, success), torch.eye(4))


def test_success_at_the_edge_of_a_goal_does_not_depend_on_how_many_play() -> None:
    angle = torch.rand(1024, generator=torch.Generator().manual_seed(0)) * 6.3
    edge = torch.tensor(GOALS[0]) + 0.1 * torch.stack([angle.cos(), angle.sin()], dim=1)

    def play(num_envs: int) -> torch.Tensor:
        env = registry.make_env("GaussianMixture", {}, num_envs)
        found = []
        for part in edge.split(num_envs):
            env.reset(0)
            env.position.copy_(part)  # type: ignore[attr-defined]
            found.append(env.step(torch.zeros(num_envs, 2)).success)
        return torch.cat(found)

    together = play(1024)
    assert 0 < int(together.sum()) < 1024
    assert torch.equal(together, play(8))


def test_demonstrations_reach_their_own_goal_but_not_always_all_the_way() -> None:
    expert = registry.make_expert("GaussianMixture", {})
    final_distance = []
    for seed in range(40):
        behaviour = seed % 4
        episode = expert.demonstrate(behaviour, seed)
        assert episode.success
        final = torch.tensor(episode.obs[-1])
        assert int(torch.cdist(final[None], torch.tensor(GOALS)).argmin()) == behaviour
        final_distance.append(float((final - torch.tensor(GOALS[behaviour])).norm()))
    short = sum(distance > 0.22 for distance in final_distance) / len(final_distance)
    assert short < 0.2
    assert max(final_distance) > 0.1
    again = expert.demonstrate(3, 39)
    assert torch.equal(torch.tensor(again.action), torch.tensor(episode.action))


def test_an_unknown_setting_is_refused_with_its_path() -> None:
    with pytest.raises(registry.ConfigError, match=r"env\.goal_radius"):
        registry.make_env("GaussianMixture", {"goal_radius": 2.0}, 1)


def test_a_demonstrations_shape_does_not_depend_on_where_it_starts() -> None:
    expert = registry.make_expert("GaussianMixture", {})
    episodes = [expert.demonstrate(0, seed) for seed in range(60)]
    starts = torch.tensor([episode.obs[0].tolist() for episode in episodes])
    sideways = torch.tensor([float(episode.action[0][1]) for episode in episodes])
    for column in range(2):
        correlation = float(torch.corrcoef(torch.stack([starts[:, column], sideways]))[0, 1])
        assert abs(correlation) < 0.5
