"""Resampled paths and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.reporting.trajectories import (
    PathBook,
    PlanarPath,
    encode_paths,
    load_paths,
    merge_books,
)


def make_book(policy: str = "dsrl", seed: int = 0) -> PathBook:
    rng = np.random.default_rng(seed)
    paths = [
        PlanarPath(policy, seed, code, mode, success, rng.normal(size=(5, 2)).astype(np.float32))
        for code, mode, success in [(0, "left", True), (1, "right", True), (0, None, False)]
    ]
    return PathBook(("tip_x", "tip_y"), "turn", ("left", "right", "both"), paths)


def test_round_trip(tmp_path: Path) -> None:
    book = merge_books([make_book("pretrained"), make_book("dsrl", 1)])
    path = tmp_path / "trajectories.parquet"
    path.write_bytes(encode_paths(book))
    copy = load_paths(path)
    assert (copy.axes, copy.labelling, copy.modes) == (book.axes, book.labelling, book.modes)
    assert len(copy.paths) == 6
    for one, other in zip(book.paths, copy.paths, strict=True):
        assert (one.policy, one.seed, one.code, one.mode, one.success) == (
            other.policy,
            other.seed,
            other.code,
            other.mode,
            other.success,
        )
        np.testing.assert_array_equal(one.xy, other.xy)


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.parquet"
    with pytest.raises(ArtifactError, match="missing trajectories"):
        load_paths(path)
    contents = encode_paths(make_book())
    for damaged in (contents[: len(contents) // 2], b"", b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="damaged trajectories") as error:
            load_paths(path)
        assert "\n" not in str(error.value)
    pq.write_table(pa.table({"x": [1.0]}), path)
    with pytest.raises(ArtifactError, match="damaged trajectories"):
        load_paths(path)
