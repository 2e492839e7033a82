import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from zarr.codecs import BloscCodec

from bmd_pipeline.demos.store import Demos, DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import ArtifactError, DataError

finite = st.floats(-1e6, 1e6, width=32)


@st.composite
def episode_lists(draw: st.DrawFn) -> list[Episode]:
    obs_dim, action_dim = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    return [
        Episode(
            draw(st_np.arrays(np.float32, (length, obs_dim), elements=finite)),
            draw(st_np.arrays(np.float32, (length, action_dim), elements=finite)),
            True,
            0,
        )
        for length in lengths
    ]


def write(path: Path, episodes: list[Episode], chunk_rows: int = 4, **attributes: object) -> None:
    dims = episodes[0].obs.shape[1], episodes[0].action.shape[1]
    with DemoWriter(path, *dims, attributes, chunk_rows=chunk_rows) as writer:
        for episode in episodes:
            writer.append(episode)


@given(episodes=episode_lists(), chunk_rows=st.integers(1, 12))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path: Path, episodes: list[Episode], chunk_rows: int) -> None:
    path = tmp_path / "demos.zarr"
    write(path, episodes, chunk_rows, task="Toy")
    demos = load_demos(path)
    assert demos.num_episodes == len(episodes)
    assert demos.attributes["task"] == "Toy"
    for start, end, episode in zip(demos.episode_starts, demos.episode_ends, episodes, strict=True):
        np.testing.assert_array_equal(demos.obs[start:end], episode.obs)
        low, high = np.array(demos.action_low), np.array(demos.action_high)
        stored = low + (demos.action[start:end] + 1.0) / 2.0 * (high - low)
        np.testing.assert_allclose(stored, episode.action, atol=1e-6 * float((high - low).max() + np.abs(low).max()))


def make_episode(length: int = 5, seed: int = 0) -> Episode:
    draw = np.random.default_rng(seed)
    return Episode(
        draw.normal(size=(length, 2)).astype(np.float32),
        draw.uniform(-1, 1, (length, 1)).astype(np.float32),
        True,
        0,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "demos.zarr"
    write(path, [make_episode(5, 0), make_episode(3, 1), make_episode(4, 2)])
    return path


def test_full_chunks_are_written_as_they_come(tmp_path: Path) -> None:
    with DemoWriter(tmp_path / "d", 2, 1, {}, chunk_rows=4) as writer:
        writer.append(make_episode(3))
        (partial,) = tmp_path.iterdir()
        assert not list(partial.glob("data/obs/c/*/*"))
        writer.append(make_episode(6))
        assert len(list(partial.glob("data/obs/c/*/*"))) == 2
        assert not (tmp_path / "d").exists()
    assert len(list((tmp_path / "d").glob("data/obs/c/*/*"))) == 3


def test_failed_collection_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), DemoWriter(tmp_path / "d", 2, 1, {}, chunk_rows=4) as writer:  # noqa: PT012
        writer.append(make_episode())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failing_last_write_leaves_the_old_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_demos(store)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with (  # noqa: PT012
        pytest.raises(ArtifactError, match="can't be written: disk full"),
        DemoWriter(store, 2, 1, {}, chunk_rows=100) as writer,
    ):
        writer.append(make_episode(7))
        monkeypatch.setattr(zarr.Array, "append", fail)
    np.testing.assert_array_equal(load_demos(store).obs, before.obs)
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Group, "create_array", fail)
    with (
        pytest.raises(ArtifactError, match=f"{tmp_path}/d can't be written: No space left on device"),
        DemoWriter(tmp_path / "d", 2, 1, {}, chunk_rows=100),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def bad_episode(kind: str) -> Episode:
    good = make_episode()
    obs, action = good.obs.copy(), good.action.copy()
    if kind == "nan":
        obs[3, 1] = np.nan
    elif kind == "wide":
        action = np.zeros((5, 2), np.float32)
    elif kind == "uneven":
        action = action[:4]
    elif kind == "empty":
        obs, action = obs[:0], action[:0]
    elif kind == "too large":
        obs = np.where(obs == obs[2, 0], 1e39, obs.astype(np.float64))  # finite, but not in float32
    elif kind == "text":
        action = np.full((5, 1), "left")
    return Episode(obs, action, True, 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", r"episode 1: obs .* first at \[3, 1\]"),
        ("wide", r"episode 1: action must be \(T, 1\), got \(5, 2\)"),
        ("uneven", "episode 1: obs and action must have the same number of rows .* got 5 and 4"),
        ("empty", "episode 1: .* got 0 and 0"),
        ("too large", r"episode 1: obs has 1 values that are not finite, the first at \[2, 0\]"),
        ("text", "episode 1: obs and action must be arrays of numbers"),
    ],
)
def test_writer_refuses_bad_episodes(tmp_path: Path, kind: str, message: str) -> None:
    with DemoWriter(tmp_path / "d", 2, 1, {}, chunk_rows=4) as writer:
        writer.append(make_episode())
        with pytest.raises(DataError, match=message):
            writer.append(bad_episode(kind))
    assert load_demos(tmp_path / "d").num_episodes == 1


@pytest.mark.parametrize(
    "bounds",
    [
        {"action_low": [-1.0]},
        {"action_low": [1.0], "action_high": [1.0]},
        {"action_low": [-1.0, -1.0], "action_high": [1.0, 1.0]},
        {"action_low": [-np.inf], "action_high": [1.0]},
    ],
)
def test_writer_refuses_bounds_that_are_none_at_once(tmp_path: Path, bounds: dict[str, list[float]]) -> None:
    with pytest.raises(DataError, match="action_low and action_high must be 1 finite numbers each"):
        DemoWriter(tmp_path / "d", 2, 1, {}, chunk_rows=4, **bounds)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("attributes", "episodes", "message"),
    [
        ({}, 0, "meta/episode_ends must be integers"),
        ({"schema_version": 7}, 1, "schema version 7, this release reads 1"),
    ],
)
def test_writer_refuses_a_store_that_could_not_be_read_and_keeps_the_old_one(
    store: Path, attributes: dict[str, object], episodes: int, message: str
) -> None:
    before = load_demos(store)
    with pytest.raises(DataError, match=message) as caught, DemoWriter(store, 2, 1, attributes) as writer:  # noqa: PT012
        for _ in range(episodes):
            writer.append(make_episode())
    assert str(caught.value).startswith(str(store))
    assert f"{store.name}." not in str(caught.value)
    np.testing.assert_array_equal(load_demos(store).obs, before.obs)
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_writer_keeps_what_it_was_given_not_what_the_array_holds_later(tmp_path: Path) -> None:
    buffer = make_episode()
    with DemoWriter(tmp_path / "d", 2, 1, {}) as writer:
        writer.append(buffer)
        before = buffer.obs.copy()
        buffer.obs[:] = 0.0
    np.testing.assert_array_equal(load_demos(tmp_path / "d").obs, before)


def set_value(name: str, index: object, value: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        zarr.open_group(path, mode="r+")[name][index] = value  # type: ignore[index]

    return damage


def remove(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def set_attribute(path: Path) -> None:
    zarr.open_group(path, mode="r+").attrs["schema_version"] = 7


def cut_chunk(path: Path) -> None:
    chunk = path / "data/obs/c/1/0"
    chunk.write_bytes(chunk.read_bytes()[:-3])


def flip_bit(path: Path) -> None:
    chunk = path / "data/obs/c/1/0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 2
    chunk.write_bytes(content)


def shorten(path: Path) -> None:
    zarr.open_group(path, mode="r+")["data/action"].resize((10, 1))  # type: ignore[union-attr]


def to_integers(path: Path) -> None:
    group = zarr.open_group(path, mode="r+")
    del group["data/action"]
    group.create_array("data/action", data=np.ones((12, 1), np.int32))


def break_json(path: Path) -> None:
    (path / "data" / "obs" / "zarr.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (set_value("data/obs", (7, 1), np.nan), r"data/obs has 1 values that are not finite, the first at \[7, 1\]"),
        (set_value("data/action", (2, 0), np.inf), r"data/action has 1 values .* first at \[2, 0\]"),
        (set_value("meta/episode_ends", 1, 5), "must rise from above 0, entry 1 is 5 after 5"),
        (set_value("meta/episode_ends", 0, 0), "entry 0 is 0 after 0"),
        (set_value("meta/episode_ends", 2, 40), "episodes end at row 40, but there are 12 observations and 12"),
        (remove("data/action"), "array data/action is missing"),
        (remove("meta"), "array meta/episode_ends is missing"),
        (remove("data/obs/c/1/0"), "data/obs/c/1/0 is missing, a chunk of the array"),
        (remove("meta/episode_ends/c/0"), "meta/episode_ends/c/0 is missing, a chunk"),
        (remove("zarr.json"), "can't be read as a zarr store"),
        (set_attribute, "schema version 7, this release reads 1"),
        (cut_chunk, "can't be read as a zarr store: .*; restore it from a copy, or move it away"),
        (flip_bit, "can't be read as a zarr store: .*checksum"),
        (break_json, "can't be read as a zarr store"),
        (shorten, "truncated or inconsistent: .* 12 observations and 10 actions"),
        (to_integers, "must be floats"),
    ],
)
def test_damage_is_one_line(store: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(store)
    with pytest.raises(DataError, match=message) as caught:
        load_demos(store)
    assert "\n" not in str(caught.value)
    assert str(store) in str(caught.value)


def test_sizes_of_the_task_are_checked(store: Path) -> None:
    load_demos(store, obs_dim=2, action_dim=1)
    with pytest.raises(DataError, match="data/obs has dimension 2, the task has 8"):
        load_demos(store, obs_dim=8)
    with pytest.raises(DataError, match="data/action has dimension 1, the task has 2"):
        load_demos(store, action_dim=2)


def test_missing_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no demonstrations at .*none\.zarr$"):
        load_demos(tmp_path / "none.zarr")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="no demonstrations at"):
        load_demos(tmp_path / "file")


@pytest.mark.parametrize("obs_name", ["obs", "state"])
def test_zarr_v2_stores_of_the_field_open(tmp_path: Path, obs_name: str) -> None:
    path = tmp_path / "pusht.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    obs = np.arange(12, dtype=np.float64).reshape(6, 2)
    group.create_array(f"data/{obs_name}", data=obs, chunks=(4, 2))
    group.create_array("data/action", data=np.full((6, 1), 0.5, np.float32), chunks=(4, 1))
    group.create_array("meta/episode_ends", data=np.array([2, 6]))
    demos = load_demos(path, obs_dim=2, action_dim=1)
    assert isinstance(demos, Demos)
    assert demos.obs.dtype == demos.action.dtype == np.float32
    np.testing.assert_array_equal(demos.obs, obs)
    np.testing.assert_array_equal(demos.episode_starts, [0, 2])
    remove(f"data/{obs_name}")(path)
    with pytest.raises(DataError, match="array data/obs is missing"):
        load_demos(path)


def write_foreign(path: Path, zarr_format: Literal[2, 3] = 2, **options: Any) -> zarr.Group:
    """Two episodes of another project; options are those of data/obs."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format, attributes={"version": 1})
    group.create_array("data/obs", data=np.ones((6, 2), np.float32), chunks=(4, 2), **options)
    group.create_array("data/action", data=np.full((6, 1), 0.5, np.float32), chunks=(4, 1))
    group.create_array("meta/episode_ends", data=np.array([2, 6]))
    return group


class RunsCode(numcodecs.abc.Codec):  # type: ignore[misc]
    """A codec that does something else than decoding."""

    codec_id = "runs_code"
    ran = False

    def encode(self, buf: Any) -> Any:
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        RunsCode.ran = True
        return buf


@pytest.mark.parametrize("place", ["filters", "compressors"])
def test_unknown_codecs_are_refused_before_they_run(tmp_path: Path, place: str) -> None:
    numcodecs.register_codec(RunsCode)
    write_foreign(tmp_path / "d", **{place: [RunsCode()]})
    RunsCode.ran = False
    with pytest.raises(DataError, match=r"data/obs/\.zarray: codec 'runs_code' is not decoded; .*blosc"):
        load_demos(tmp_path / "d")
    assert not RunsCode.ran


@pytest.mark.parametrize("codec", [{"id": "pickle"}, {"id": "pickle", "name": "zstd"}, {"id": "json2"}, "pickle"])
def test_codecs_of_format_2_are_those_that_are_known(tmp_path: Path, codec: object) -> None:
    write_foreign(tmp_path / "d")
    path = tmp_path / "d" / "data" / "obs" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"filters": [codec]}))
    with pytest.raises(DataError, match=r"\.zarray: codec '.*' is not decoded"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("codec", [{"name": "numcodecs.pickle"}, {"name": "vlen-bytes"}, "numcodecs.pickle"])
def test_codecs_of_format_3_are_those_that_are_known(tmp_path: Path, sharded: bool, codec: object) -> None:
    write_foreign(tmp_path / "d", 3, **({"shards": (8, 2)} if sharded else {}))
    load_demos(tmp_path / "d")
    path = tmp_path / "d" / "data" / "obs" / "zarr.json"
    metadata = json.loads(path.read_text())
    codecs = metadata["codecs"][0]["configuration"]["index_codecs"] if sharded else metadata["codecs"]
    codecs.append(codec)
    path.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"obs/zarr\.json: codec '.*' is not decoded"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize("compressor", [numcodecs.Blosc("lz4"), numcodecs.Zlib(), numcodecs.LZ4(), None])
def test_codecs_of_the_field_are_decoded(tmp_path: Path, compressor: Any) -> None:
    write_foreign(tmp_path / "d", filters=[numcodecs.Delta("f4")], compressors=compressor)
    np.testing.assert_array_equal(load_demos(tmp_path / "d").obs, 1.0)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("size", [0, 15, 40])
def test_a_chunk_that_is_not_what_bloscs_header_says_is_not_decoded(
    tmp_path: Path, zarr_format: Literal[2, 3], size: int
) -> None:
    pack = numcodecs.Blosc("lz4") if zarr_format == 2 else BloscCodec(cname="lz4")
    write_foreign(tmp_path / "d", zarr_format, compressors=pack)
    assert load_demos(tmp_path / "d").num_episodes == 2
    chunk = tmp_path / "d/data/obs" / ("1.0" if zarr_format == 2 else "c/1/0")
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"{chunk} is damaged: it has {size} bytes, and its header says"):
        load_demos(tmp_path / "d")


def test_blosc_inside_of_shards_is_not_decoded(tmp_path: Path) -> None:
    write_foreign(tmp_path / "d", 3, shards=(8, 2), compressors=BloscCodec())
    with pytest.raises(DataError, match=r"obs/zarr\.json: blosc is decoded as the last codec, outside of shards"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize("beside", [None, "notes.txt"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_lost_chunk_is_not_read_as_zeros(tmp_path: Path, zarr_format: Literal[2, 3], beside: str | None) -> None:
    write_foreign(tmp_path / "d", zarr_format)
    folder = tmp_path / "d/data/obs"
    (folder / ("0.0" if zarr_format == 2 else "c/0/0")).unlink()
    if beside:
        (folder / beside).touch()
        (folder / f"more {beside}").touch()
    with pytest.raises(DataError, match=r"chunks?.*; restore it from a copy, or write the array again with every"):
        load_demos(tmp_path / "d")


@pytest.mark.filterwarnings("error")
def test_a_number_that_is_too_large_is_one_line_and_no_warning(tmp_path: Path) -> None:
    group: Any = write_foreign(tmp_path / "d")
    del group["data/obs"]
    group.create_array("data/obs", data=np.full((6, 2), 1e300))
    with pytest.raises(DataError, match=r"data/obs has 12 values that are not finite, the first at \[0, 0\]"):
        load_demos(tmp_path / "d")


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_was_written_after_metadata_were_consolidated_is_read(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    write_foreign(tmp_path / "d", zarr_format)
    zarr.consolidate_metadata(tmp_path / "d")
    group: Any = zarr.open_group(tmp_path / "d", mode="r+", use_consolidated=False)
    group["data/obs"].append(np.full((3, 2), 2.0, np.float32))
    group["data/action"].append(np.full((3, 1), 0.5, np.float32))
    group["meta/episode_ends"].append(np.array([9]))
    if zarr_format == 2:  # in format 3 this writes what is consolidated anew
        group.attrs["version"] = 2
    demos = load_demos(tmp_path / "d")
    assert demos.episode_ends.tolist() == [2, 6, 9]
    assert demos.obs[:, 0].tolist() == [1.0] * 6 + [2.0] * 3
    assert demos.attributes["version"] == (2 if zarr_format == 2 else 1)


@pytest.mark.parametrize("name", ["", "data/obs"])
def test_metadata_of_two_formats_are_not_chosen_from(tmp_path: Path, name: str) -> None:
    write_foreign(tmp_path / "new", 3)
    write_foreign(tmp_path / "d")
    shutil.copy(tmp_path / "new" / name / "zarr.json", tmp_path / "d" / name / "zarr.json")
    with pytest.raises(DataError, match=r"zarr\.json beside it are metadata of two formats: remove the older"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize("chunks", [[4, 2], [10**12, 2]])
def test_an_array_that_its_files_cannot_fill_is_not_read(tmp_path: Path, chunks: list[int]) -> None:
    write_foreign(tmp_path / "d")
    path = tmp_path / "d" / "data" / "obs" / ".zarray"
    shape = [10**12, 2] if chunks == [4, 2] else [6, 2]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": shape, "chunks": chunks}))
    with pytest.raises(DataError, match=r"data/obs would unfold to 8000000000000 bytes from \d+; at most 1073741824"):
        load_demos(tmp_path / "d")


def test_what_is_no_number_is_not_decoded(tmp_path: Path) -> None:
    group = write_foreign(tmp_path / "d")
    del group["data/obs"]
    group.create_array("data/obs", data=np.array([["a", "b"]] * 6))
    with pytest.raises(DataError, match="data/obs must hold numbers, got <U1"):
        load_demos(tmp_path / "d")


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("..")]
)
def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_foreign(tmp_path / "d")
    chunk = tmp_path / "d" / "data" / "obs" / "0.0"
    chunk.unlink()
    make(chunk)
    with pytest.raises(DataError, match=r"data/obs/0\.0 is neither a file nor a folder of the store itself"):
        load_demos(tmp_path / "d")


def test_the_store_and_its_files_may_be_links(tmp_path: Path) -> None:
    """As tools that keep versions of data have them."""
    write_foreign(tmp_path / "real")
    chunk = tmp_path / "real" / "data" / "obs" / "0.0"
    chunk.rename(tmp_path / "chunk")
    chunk.symlink_to(tmp_path / "chunk")
    (tmp_path / "d").symlink_to("real")
    assert load_demos(tmp_path / "d").num_episodes == 2


def test_store_is_zarr_v3_in_the_documented_layout(store: Path) -> None:
    assert json.loads((store / "zarr.json").read_text())["zarr_format"] == 3
    group = zarr.open_group(store, mode="r")
    assert group["meta/episode_ends"].dtype == np.int64  # type: ignore[union-attr]
    assert group["data/obs"].shape == (12, 2)  # type: ignore[union-attr]


bounds = st.tuples(st.floats(-1e3, 1e3), st.floats(0.01, 1e3)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(pairs=st.lists(bounds, min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_actions_are_scaled_by_the_bounds_that_are_given(
    tmp_path: Path, pairs: list[tuple[float, float]], seed: int
) -> None:
    low, high = (np.array(side) for side in zip(*pairs, strict=True))
    unit = np.random.default_rng(seed).uniform(-1, 1, (7, len(pairs)))
    written = (low + (unit + 1) / 2 * (high - low)).astype(np.float32)
    with DemoWriter(tmp_path / "d", 1, len(pairs), {}, chunk_rows=4, action_low=low, action_high=high) as writer:
        writer.append(Episode(np.zeros((7, 1), np.float32), written, True, 0))
    demos = load_demos(tmp_path / "d")
    assert (demos.action_low, demos.action_high) == (tuple(low), tuple(high))
    rounding = 1e-5 + 1e-6 * float((np.abs(low) + np.abs(high)).max() / (high - low).min())
    np.testing.assert_allclose(demos.action, unit, atol=rounding)


def test_without_bounds_the_data_decide(tmp_path: Path) -> None:
    def load(*rows: tuple[float, float]) -> Demos:
        write(tmp_path / "d", [Episode(np.zeros((len(rows), 1), np.float32), np.array(rows, np.float32), True, 0)])
        return load_demos(tmp_path / "d")

    inside = load((-0.5, 0.25), (1.0, 0.0))
    assert (inside.action_low, inside.action_high) == ((-1.0, -1.0), (1.0, 1.0))
    assert inside.action.tolist() == [[-0.5, 0.25], [1.0, 0.0]]
    beyond = load((-4.0, 7.0), (12.0, 7.0), (4.0, 7.0))
    assert (beyond.action_low, beyond.action_high) == ((-4.0, 6.0), (12.0, 8.0))
    assert beyond.action.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]
    assert beyond.clipped_share == 0.0


def test_what_lies_outside_given_bounds_is_clipped_and_counted(tmp_path: Path) -> None:
    action = np.array([[0.0], [5.0], [-2.0], [2.0]], np.float32)
    with DemoWriter(tmp_path / "d", 1, 1, {}, chunk_rows=4, action_low=[-2.0], action_high=[2.0]) as writer:
        writer.append(Episode(np.zeros((4, 1), np.float32), action, True, 0))
    demos = load_demos(tmp_path / "d")
    assert demos.action[:, 0].tolist() == [0.0, 1.0, -1.0, 1.0]
    assert demos.clipped_share == 0.25


@pytest.mark.parametrize("low", [None, [-1.0, -1.0], [1.0], ["a"], 3, [float("nan")]])
def test_bounds_that_are_none_are_one_line(store: Path, low: object) -> None:
    zarr.open_group(store, mode="r+").attrs.update(action_low=low, action_high=[1.0])
    with pytest.raises(DataError, match="action_low and action_high must be 1 finite numbers each") as caught:
        load_demos(store)
    assert "\n" not in str(caught.value)
