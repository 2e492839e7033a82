"""Clusters of episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bmd_pipeline.errors import TrainingError
from bmd_pipeline.modes.clustering import cluster_episodes, resample_track


def test_resampling_interpolates_up_to_each_episodes_own_end() -> None:
    generator = torch.Generator().manual_seed(0)
    track = torch.randn(20, 5, 2, generator=generator)
    length = torch.tensor([3, 19, 7, 1, 12])
    points = resample_track(track, length, 6).view(5, 6, 2)
    for episode, last in enumerate(length.tolist()):
        at = np.linspace(0, 1, 7)[1:] * last
        for column in range(2):
            expected = np.interp(at, np.arange(last + 1), track[: last + 1, episode, column].numpy())
            np.testing.assert_allclose(points[episode, :, column].numpy(), expected, atol=1e-5)


def test_separate_groups_become_separate_clusters_whatever_the_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(200) % 4
    corners = 10.0 * torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    points = corners[truth] + torch.randn(200, 2, generator=generator)
    for seed in range(5):
        labels, centres = cluster_episodes(points, 4, seed)
        assert len({(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}) == 4
        torch.testing.assert_close(centres[labels], corners[truth], atol=1.0, rtol=0)


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    first, second = cluster_episodes(points, 5, 7), cluster_episodes(points, 5, 7)
    assert torch.equal(first[0], second[0])


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(TrainingError, match="only 3 episodes to cluster into 4 modes"):
        cluster_episodes(torch.zeros(3, 2), 4, 0)
