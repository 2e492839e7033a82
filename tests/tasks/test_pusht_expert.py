"""The PushT expert, in simulation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.tasks.pusht.expert import PushTExpert, make_expert
from bmd_pipeline.tasks.pusht.modes import LABELLINGS
from bmd_pipeline.tasks.pusht.options import Options


@pytest.fixture(scope="module")
def expert() -> Iterator[PushTExpert]:
    expert = make_expert(Options())
    yield expert
    expert.close()


@pytest.fixture(scope="module")
def episodes(expert: PushTExpert) -> list[tuple[Episode, torch.Tensor]]:
    """Two episodes of each behaviour, and their tracks (T + 1, track_dim)."""
    env = expert._env
    advance = env._advance
    tracks: list[torch.Tensor] = []

    def recorded(action: torch.Tensor, active: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tracks.append(env.track()[0])
        return advance(action, active)

    played = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(env, "_advance", recorded)
        for index in range(8):
            tracks.clear()
            episode = expert.demonstrate(index % 4, seed=100 + index)
            played.append((episode, torch.stack([*tracks, env.track()[0]])))
    return played


def test_mostly_succeeds_in_every_behaviour(episodes: list[tuple[Episode, torch.Tensor]]) -> None:
    success = [episode.success for episode, _ in episodes]
    assert sum(success) >= 7
    assert {episode.behaviour for episode, _ in episodes if episode.success} == {0, 1, 2, 3}


def test_behaves_as_asked(expert: PushTExpert, episodes: list[tuple[Episode, torch.Tensor]]) -> None:
    sides = LABELLINGS[1]
    assert sides.modes == expert.behaviours
    for episode, track in episodes:
        if not episode.success:
            continue
        weights = sides.label(track[:, None], torch.tensor([len(episode.action)]), torch.tensor([True]))
        assert int(weights[0].argmax()) == episode.behaviour


def test_records_what_the_environment_showed(expert: PushTExpert, episodes: list[tuple[Episode, torch.Tensor]]) -> None:
    for seed, (episode, track) in enumerate(episodes, start=100):
        length = len(episode.action)
        assert episode.obs.shape == (length, 8)
        assert episode.action.shape == (length, 2)
        assert episode.obs.dtype == episode.action.dtype == np.float32
        assert np.abs(episode.action).max() <= 1.0
        assert len(track) == length + 1
        np.testing.assert_array_equal(episode.obs[0], expert._env.reset(seed)[0].numpy())


def test_the_same_seed_gives_the_same_episode(
    expert: PushTExpert, episodes: list[tuple[Episode, torch.Tensor]]
) -> None:
    first, _ = episodes[0]
    again = expert.demonstrate(0, seed=100)
    np.testing.assert_array_equal(again.obs, first.obs)
    np.testing.assert_array_equal(again.action, first.action)
    assert again.success == first.success
