"""Paths packed for the page."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from bmd_pipeline.reporting import trajectories
from bmd_pipeline.reporting.sources import ReportSources
from bmd_pipeline.reporting.trajectories import NUM_POINTS, encode_planar
from tests.reporting.made_up import MODES, MadeUpRun


@pytest.fixture
def sources(finished: MadeUpRun) -> ReportSources:
    return finished.load()


def unpack(packed: dict[str, object]) -> np.ndarray:
    """The coordinates as the page's script reads them, (num_paths, NUM_POINTS, 2)."""
    levels = np.frombuffer(base64.b64decode(str(packed["xy"])), "<u2").reshape(-1, NUM_POINTS, 2)
    low, high = np.array(packed["low"]), np.array(packed["high"])
    return low + levels / 65535 * (high - low)


def test_round_trip_is_finer_than_a_pixel(sources: ReportSources) -> None:
    packed = encode_planar(sources.paths, sources.episodes, MODES)
    truth = np.stack([path.xy for group in sources.paths.values() for path in group])
    span = np.ptp(truth, axis=(0, 1))
    assert np.all(np.abs(unpack(packed) - truth) <= span / 65535)
    assert [(group["policy"], group["seed"], group["count"]) for group in packed["groups"]] == [
        (policy, seed, 12) for policy, seed in sources.paths
    ]
    first = sources.paths["pretrained", 0]
    assert packed["success"][:12] == [int(path.success) for path in first]
    assert [MODES[mode] for mode in packed["mode"][:12]] == [path.mode for path in first]
    assert packed["length"][:12] == sources.episodes["pretrained", 0].length[:12].tolist()


def test_too_many_paths_are_cut_evenly(sources: ReportSources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "MAX_BYTES", 4 * NUM_POINTS * len(sources.paths) * 3 + 1)
    packed = encode_planar(sources.paths, sources.episodes, MODES)
    assert {group["count"] for group in packed["groups"]} == {3}
    assert len(unpack(packed)) == len(packed["code"]) == len(packed["length"]) == 3 * len(sources.paths)
