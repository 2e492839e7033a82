"""Clusters of episodes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmd_pipeline.errors import TrainingError
from bmd_pipeline.modes import clustering
from bmd_pipeline.modes.clustering import cluster_by_density, cluster_episodes
from bmd_pipeline.modes.modes import interpolate_rows, resample_track


@pytest.mark.parametrize("keep_start", [True, False])
def test_resampling_interpolates_up_to_each_episodes_own_end(keep_start: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    track = torch.randn(20, 5, 2, generator=generator)
    length = torch.tensor([3, 19, 7, 1, 0])
    points = resample_track(track, length, 6, keep_start=keep_start).view(5, 6, 2)
    for episode, last in enumerate(length.tolist()):
        at = (np.linspace(0, 1, 6) if keep_start else np.linspace(0, 1, 7)[1:]) * last
        for column in range(2):
            expected = np.interp(at, np.arange(last + 1), track[: last + 1, episode, column].numpy())
            np.testing.assert_allclose(points[episode, :, column].numpy(), expected, atol=1e-5)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 15), st.integers(0, 1000))
def test_episodes_in_a_row_are_described_as_those_side_by_side(lengths: list[int], points: int, seed: int) -> None:
    """`length` is the number of rows here, and the index of the last entry there."""
    generator = torch.Generator().manual_seed(seed)
    episodes = [torch.randn(length, 2, generator=generator) for length in lengths]
    ends = torch.tensor(lengths).cumsum(0)
    found = interpolate_rows(torch.cat(episodes), ends - torch.tensor(lengths), ends - 1, points)
    for row, episode in zip(found, episodes, strict=True):
        last = torch.tensor([len(episode) - 1])
        torch.testing.assert_close(row, resample_track(episode[:, None], last, points)[0], rtol=1e-4, atol=1e-5)


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
    with pytest.raises(TrainingError, match="only 3 demonstrations to cluster into 4 modes"):
        cluster_episodes(torch.zeros(3, 2), 4, 0)


def _groups(sizes: list[int], seed: int, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Points in the plane around far corners, and the corner of each."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    truth = truth[torch.randperm(len(truth), generator=generator)]
    angle = 2 * np.pi * truth / len(sizes)
    corners = 20.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return corners + spread * torch.randn(len(truth), 2, generator=generator), truth


@settings(max_examples=30)
@given(st.lists(st.integers(10, 120), min_size=2, max_size=8), st.integers(0, 1000))
def test_density_finds_the_groups_and_their_number(sizes: list[int], seed: int) -> None:
    points, truth = _groups(sizes, seed)
    labels, centres = cluster_by_density(points, 8, 32)
    assert len(centres) == len(sizes)
    assert len({(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}) == len(sizes)
    nearest = torch.cdist(points, centres).argmin(dim=1)
    assert torch.equal(labels, nearest)  # here, where groups are equally wide


def test_density_cuts_no_group_in_two() -> None:
    """A wide group beside a small one: k-means, told to find three, cuts the wide one."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(600, 2, generator=generator) * torch.tensor([20.0, 1.0])
    small = torch.tensor([10.0, 8.0]) + 0.2 * torch.randn(40, 2, generator=generator)
    labels, centres = cluster_by_density(torch.cat([wide, small]), 8, 3)
    assert len(centres) == 2
    assert len(set(labels[:600].tolist())) == len(set(labels[600:].tolist())) == 1
    cut, _ = cluster_episodes(torch.cat([wide, small]), 3, 0)
    assert len(set(cut[:600].tolist())) > 1


def test_of_too_many_groups_the_largest_are_kept_and_the_others_join_them() -> None:
    points, truth = _groups([50, 10, 60, 12, 70], 0)
    labels, centres = cluster_by_density(points, 8, 3)
    assert len(centres) == 3
    assert sorted(len(points[(labels == k) & torch.isin(truth, torch.tensor([0, 2, 4]))]) for k in range(3)) == [
        50,
        60,
        70,
    ]
    assert set(labels.tolist()) == {0, 1, 2}


def test_of_very_many_episodes_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their density costs no more however many there are, and the groups are the same."""
    points, truth = _groups([400, 150, 90], 0)
    whole, _ = cluster_by_density(points, 30, 32)
    seen = []

    class Counted(clustering.HDBSCAN):
        def fit_predict(self, data: np.ndarray) -> np.ndarray:
            seen.append(len(data))
            found: np.ndarray = super().fit_predict(data)
            return found

    monkeypatch.setattr(clustering, "HDBSCAN", Counted)
    monkeypatch.setattr(clustering, "MAX_POINTS", 250)
    labels, centres = cluster_by_density(points, 30, 32)
    assert seen == [-(-640 // 3)]
    assert len(centres) == 3
    assert len({(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}) == 3
    assert len({(int(a), int(b)) for a, b in zip(labels, whole, strict=True)}) == 3


def test_groups_below_the_least_size_are_none() -> None:
    points, _ = _groups([200, 200, 12], 0)
    assert len(cluster_by_density(points, 8, 32)[1]) == 3
    assert len(cluster_by_density(points, 20, 32)[1]) == 2


@pytest.mark.parametrize("count", [0, 1, 2 * 80 - 1, 400])
def test_where_no_gap_shows_there_are_no_groups(count: int) -> None:
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    labels, centres = cluster_by_density(points, 80, 32)
    assert len(centres) < 2
    assert labels.tolist() == [0] * count
