"""Whatever is read is a regular file of a sane size, and what is none is refused before a byte is asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmd_pipeline.config.load import load_config, read_settings
from bmd_pipeline.errors import ArtifactError, BMDError
from bmd_pipeline.io import files
from bmd_pipeline.io.files import hash_file, is_there, load_weights, read_json, read_table
from bmd_pipeline.io.logger import Tracker, load_metrics
from bmd_pipeline.io.provenance import (
    find_edited_hash,
    is_imported,
    require_disposable_demos,
    require_own_demos,
)
from bmd_pipeline.metrics.episodes import load_episodes
from bmd_pipeline.reporting.trajectories import load_paths

READERS: dict[str, Callable[[Path], object]] = {
    "JSON": lambda path: read_json(path, "policy"),
    "YAML": read_settings,
    "metrics": load_metrics,
    "metrics of a resumed run": lambda path: Tracker(path, resume_step=1),
    "weights": load_weights,
    "episodes": load_episodes,
    "paths": load_paths,
    "hash": hash_file,
}


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """Reading a pipe that nobody writes to would wait for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "artifact"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.mkdir()
    with pytest.raises(BMDError, match=f"{path} can't be read: it is no regular file"):
        READERS[name](path)


def test_a_record_that_is_a_pipe_is_no_record_of_an_import(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert not is_imported(tmp_path / "run.json")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "broken link"])
def test_only_where_nothing_is_a_file_counts_as_absent(tmp_path: Path, kind: str) -> None:
    path, policy = tmp_path / "demos.manifest.json", tmp_path / "policy"
    assert not is_there(path)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if kind == "device" else "nowhere")
    (tmp_path / "demos.zarr").mkdir()
    asked: list[Callable[[], object]] = [
        lambda: is_there(path),
        lambda: find_edited_hash(tmp_path / "demos.zarr", path),
        lambda: require_own_demos(policy, tmp_path / "demos.zarr"),
        lambda: require_disposable_demos(tmp_path / "demos.zarr", path, "Toy", "collect"),
    ]
    for ask in asked:
        with pytest.raises(ArtifactError, match=f"^{path} is no regular file but"):
            ask()


@pytest.mark.parametrize("name", ["tasks/PushT.yaml", "modes/PushT.yaml"])
@pytest.mark.parametrize("kind", ["pipe", "broken link"])
def test_settings_that_are_no_file_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    """Nor for those that come with the package."""
    monkeypatch.chdir(tmp_path)
    path = Path("config", name)
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("nowhere")
    with pytest.raises(ArtifactError, match=f"^{path} is no regular file but"):
        load_config("PushT")


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").symlink_to("a.json")
    assert read_json(tmp_path / "b.json", "thing") == {}


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("JSON", files.MAX_DOCUMENT_BYTES),
        ("YAML", files.MAX_DOCUMENT_BYTES),
        ("metrics", files.MAX_DOCUMENT_BYTES),
        ("weights", files.MAX_WEIGHTS_BYTES),
    ],
)
def test_what_is_too_large_is_not_read(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / "artifact"
    path.touch()
    os.truncate(path, size + 1)  # a hole, which takes no room
    with pytest.raises(BMDError, match=f"it has {size + 1} bytes, and at most {size} are read"):
        READERS[name](path)


def test_a_table_that_unfolds_to_too_many_values_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"a": pa.array([1] * 100), "b": pa.array([[1] * 9] * 100)}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", "table").num_rows == 100
    monkeypatch.setattr(files, "MAX_TABLE_VALUES", 999)
    with pytest.raises(ArtifactError, match="holds 100 rows of 1000 values, at most 999 are read"):
        read_table(tmp_path / "a.parquet", "table")
