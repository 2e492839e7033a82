"""Demonstrations for other projects, in the units of the environment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bmd_pipeline.demos.exports import WRITERS
from bmd_pipeline.demos.formats import read_recording
from bmd_pipeline.demos.store import Demos, DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode, TaskSpec

from .layouts import Pair, draw_episodes

LOW, HIGH = (0.0, -2.0), (512.0, 2.0)


@pytest.fixture
def episodes() -> list[Pair]:
    return [(obs, np.array([256, 0], np.float32) + action * [256, 2]) for obs, action in draw_episodes()]


@pytest.fixture
def demos(tmp_path: Path, episodes: list[Pair]) -> Demos:
    with DemoWriter(tmp_path / "ours.zarr", 2, 2, {}, action_low=LOW, action_high=HIGH) as writer:
        for obs, action in episodes:
            writer.append(Episode(obs, action.astype(np.float32), success=True, behaviour=0))
    return load_demos(tmp_path / "ours.zarr")


def make_spec(hz: float | None) -> TaskSpec:
    return TaskSpec("Toy", 2, 2, ("x",), ("x", "x"), horizon=9, control_hz=hz, action_low=LOW, action_high=HIGH)


@pytest.mark.parametrize("to", WRITERS)
def test_actions_are_in_the_environments_units_with_their_bounds(
    tmp_path: Path, demos: Demos, episodes: list[Pair], to: str
) -> None:
    (tmp_path / "theirs").mkdir()
    WRITERS[to](demos, tmp_path / "theirs", make_spec(20.0))
    found = read_recording(tmp_path / "theirs")
    assert found.bounds == (LOW, HIGH)
    for one, (obs, action) in zip(found.episodes, episodes, strict=True):
        np.testing.assert_array_equal(one.obs, obs)
        np.testing.assert_allclose(one.action, action, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("hz", "fps"), [(20.0, 20), (12.5, 12.5), (None, 10)])
def test_lerobots_frames_have_times_and_statistics(tmp_path: Path, demos: Demos, hz: float | None, fps: float) -> None:
    WRITERS["lerobot"](demos, tmp_path, make_spec(hz))
    info, stats = (json.loads((tmp_path / f"meta/{name}.json").read_text()) for name in ("info", "stats"))
    table = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet").to_pydict()
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (fps, 3, 9)
    np.testing.assert_allclose(table["timestamp"], np.array([0, 1, 2, 3, 0, 1, 0, 1, 2]) / fps, rtol=1e-6)
    assert table["episode_index"] == [0, 0, 0, 0, 1, 1, 2, 2, 2]
    assert table["next.done"] == [False, False, False, True, False, True, False, False, True]
    assert set(info["features"]) == set(stats) == set(table)
    np.testing.assert_allclose(stats["action"]["max"], np.array(table["action"]).max(axis=0))
    assert stats["action"]["count"] == [9]
    assert pq.read_table(tmp_path / "meta/tasks.parquet").to_pydict() == {"task_index": [0], "task": ["Toy"]}
    ends = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet")["dataset_to_index"].to_pylist()
    assert ends == [4, 6, 9]
