"""What a killed collection leaves, and how much of it counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.demos.collect import Attempt, Journal
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError


def make_episode(length: int, success: bool = True) -> Episode:
    draw = np.random.default_rng(length)
    rows = draw.normal(size=(length, 3)).astype(np.float32)
    return Episode(rows[:, :2], rows[:, 2:], success, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "attempts.journal"
    with Journal(path, "what") as journal:
        assert journal.episodes == {}
        for index in range(4):
            journal.add(Attempt(index, 1), make_episode(index + 2, success=index != 2))
    return path


def test_what_was_added_comes_back(path: Path) -> None:
    with Journal(path, "what") as journal:
        journal.add(Attempt(9, 0), make_episode(3))
    with Journal(path, "what") as journal:
        assert list(journal.episodes) == [*(Attempt(index, 1) for index in range(4)), Attempt(9, 0)]
        found, expected = journal.episodes[Attempt(3, 1)], make_episode(5)
        np.testing.assert_array_equal(found.obs, expected.obs)
        np.testing.assert_array_equal(found.action, expected.action)
        assert found.obs.dtype == np.float32
        assert (found.success, found.behaviour) == (True, 1)
        failed = journal.episodes[Attempt(2, 1)]
        assert not failed.success
        assert len(failed.obs) == 0  # nobody needs the data of a failure


def test_another_collection_starts_over(path: Path) -> None:
    with Journal(path, "something else") as journal:
        assert journal.episodes == {}
    with Journal(path, "what") as journal:
        assert journal.episodes == {}


def test_however_it_is_cut_off_whole_records_count_and_writing_goes_on(path: Path) -> None:
    content = path.read_bytes()
    counts = []
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with Journal(path, "what") as journal:
            counts.append(len(journal.episodes))
            journal.add(Attempt(7, 0), make_episode(2))
        with Journal(path, "what") as journal:
            assert len(journal.episodes) == counts[-1] + 1
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3}


def test_a_flipped_bit_costs_a_record_and_never_goes_unseen(path: Path) -> None:
    content = path.read_bytes()
    with Journal(path, "what") as journal:
        whole = journal.episodes
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        with Journal(path, "what") as journal:
            assert len(journal.episodes) < 4
            for attempt, episode in journal.episodes.items():
                np.testing.assert_array_equal(episode.obs, whole[attempt].obs)


def test_a_disk_that_fills_up_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal(path, "what") as journal:

        def fail(_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(journal, "_file", type("Full", (), {"write": staticmethod(fail), "closed": True})())
        with pytest.raises(ArtifactError, match=f"{path} can't be written: No space left on device"):
            journal.add(Attempt(8, 0), make_episode(2))
