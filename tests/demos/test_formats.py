"""Demonstrations in the formats of other projects: what is read of them, and what is refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from bmd_pipeline.demos import arrays
from bmd_pipeline.demos.formats import fit_to_task, parse_bounds, read_recording, recognise, show_bounds
from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.errors import ArtifactError, BMDError, ConfigError, DataError

from .layouts import (
    LAYOUTS,
    draw_episodes,
    write_lerobot,
    write_maniskill,
    write_minari,
    write_robomimic,
    write_zarr,
    write_zip,
)

OPTIONS = {"robomimic": ("left", "obs/right")}


def make_spec(low: float = -1.0, high: float = 1.0) -> TaskSpec:
    bounds = {"action_low": (low,) * 2, "action_high": (high,) * 2}
    return TaskSpec("Toy", obs_dim=2, action_dim=2, track_names=("x",), planar=("x", "x"), horizon=9, **bounds)


def refuse(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(BMDError, match=message) as caught:
        read_recording(path, **options)
    assert "\n" not in str(caught.value)
    assert str(path.parent) in str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_episodes_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    episodes = draw_episodes()
    path = LAYOUTS[name](tmp_path, episodes)
    assert recognise(path)
    recording = read_recording(path, OPTIONS.get(name, ()), obs_dim=2)
    assert len(recording.episodes) == len(episodes)
    for found, (obs, action) in zip(recording.episodes, episodes, strict=True):
        np.testing.assert_array_equal(found.obs, obs)
        np.testing.assert_array_equal(found.action, action)
    assert recording.format.split()[0] == name.split()[0].replace("zip", "zarr")
    assert len(recording.columns) == 2


def test_observations_are_stacked_in_the_order_asked_for(tmp_path: Path) -> None:
    episodes = draw_episodes()
    recording = read_recording(write_robomimic(tmp_path, episodes), ("right", "left"))
    np.testing.assert_array_equal(recording.episodes[0].obs, episodes[0][0][:, ::-1])
    assert recording.columns == ("obs/right[0]", "obs/left[0]")


@pytest.mark.parametrize(
    ("write", "obs", "message"),
    [
        (write_robomimic, (), r"doesn't tell what the observation is: --obs .* obs/image \(images\), obs/left \(1\)"),
        (write_robomimic, ("middle",), "holds no 'middle': --obs NAME"),
        (write_robomimic, ("image",), "obs/image holds images, and observations are states here"),
        (write_robomimic, ("left",), "obs/left has 1 columns, an observation of the task 2"),
        (write_robomimic, ("left", "right", "left"), "--obs names an array twice, obs/left, obs/right, obs/left"),
        (write_zarr, ("img",), "data/img holds images"),
        (write_lerobot, ("images.top",), r"observation\.images\.top holds images"),
        (write_lerobot, ("episode_index",), "holds no 'episode_index'"),
        (lambda folder, _: write_zarr(folder, draw_episodes(3)), (), "data/state has 3 columns, an observation"),
    ],
)
def test_which_observations_are_meant_must_be_clear(
    tmp_path: Path, write: Callable[..., Path], obs: tuple[str, ...], message: str
) -> None:
    refuse(write(tmp_path, draw_episodes()), message, obs=obs, obs_dim=2)


def test_a_file_without_states_is_told_what_adds_them(tmp_path: Path) -> None:
    with h5py.File(write_maniskill(tmp_path, draw_episodes()), "r+") as file:  # as ManiSkill publishes them
        for name in file:
            del file[name]["obs"]
    refuse(tmp_path / "trajectory.h5", r"that are states, no numbers in obs: ManiSkill .*replay_trajectory .* -o state")
    with h5py.File(write_robomimic(tmp_path, draw_episodes()), "r+") as file:
        for name in file["data"]:
            del file[f"data/{name}/obs/left"], file[f"data/{name}/obs/right"]
    refuse(tmp_path / "demo.hdf5", r"states, only obs/image \(images\): robomimic's dataset_states_to_obs.py adds")


def test_columns_beyond_number_are_refused_before_they_are_named(tmp_path: Path) -> None:
    path = write_zarr(tmp_path, draw_episodes())
    described = path / "data" / "state" / ".zarray"
    if not described.is_file():
        described = described.with_name("zarr.json")
    values = json.loads(described.read_text())
    described.write_text(json.dumps(values | {"shape": [10**9, 10**9]}))
    refuse(path, "data/state have 1000000000 columns, at most 100000 are read", obs_dim=None)


def test_names_that_terminals_would_obey_are_not_there(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path, draw_episodes())
    with h5py.File(path, "r+") as file:
        for i in (9, 10, 11):
            file[f"data/demo_{i}/obs/\x1b[2J"] = np.zeros((len(file[f"data/demo_{i}/actions"]), 2))
    refuse(path, r"it holds obs/image \(images\), obs/left \(1\), obs/right \(1\)$")
    refuse(path, r"holds no '\\x1b\[2J'", obs=("\x1b[2J",))
    root = write_lerobot(tmp_path, draw_episodes(), codebase_version="v3.0\x1b[2J")
    refuse(root, "a LeRobot dataset of version")


@pytest.mark.parametrize("name", ["zarr v3", "LeRobot v3.0", "ManiSkill"])
def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, name: str) -> None:
    def write(folder: str, *pair: np.ndarray) -> Path:
        (tmp_path / folder).mkdir()
        return LAYOUTS[name](tmp_path / folder, [*draw_episodes(), pair])

    obs, action = draw_episodes()[0]
    broken = obs.copy()
    broken[2, 1] = np.nan
    refuse(write("nan", broken, action), "observation nan in episode 3, step 2, column 1: every value must be finite")
    if name == "ManiSkill":
        refuse(write("short", obs[:2], action), "traj_3 must have as many observations as actions, .* got 3 observ")
        refuse(write("whole", obs, np.zeros(4, np.int64)), r"traj_3 must have actions that are floats \(T, dim\)")
        refuse(write("wide", np.zeros((4, 3), np.float32), action), "traj_3 has 3 columns of observations and 2 of act")


def test_what_is_no_known_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("PY")
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "none", "no demonstrations at")
    refuse(tmp_path / "empty", "is of no format that is read: a zarr store")
    refuse(tmp_path / "text.txt", "is of no format that is read")
    refuse(tmp_path / "pipe", "it is no regular file")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    refuse(tmp_path / "other.h5", r"holds none of data/demo_0 \(robomimic\)")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "other.h5").read_bytes()[:600])
    refuse(tmp_path / "cut.h5", "can't be read as HDF5: .*; restore it from a copy")


# ---- HDF5 of somebody who means no good ----


def with_link(file: h5py.File, demo: h5py.Group) -> None:
    demo["actions"] = h5py.SoftLink("/secret")


def with_external_link(file: h5py.File, demo: h5py.Group) -> None:
    demo["actions"] = h5py.ExternalLink("other.h5", "/x")


def with_linked_episode(file: h5py.File, demo: h5py.Group) -> None:
    file["data/demo_1"] = h5py.ExternalLink("other.h5", "/")


def with_virtual_array(file: h5py.File, demo: h5py.Group) -> None:
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 2))
    demo.create_virtual_dataset("actions", layout)


def with_external_storage(file: h5py.File, demo: h5py.Group) -> None:
    demo.create_dataset("actions", (4, 2), "f4", external=[("/etc/passwd", 0, 32)])


def with_objects(file: h5py.File, demo: h5py.Group) -> None:
    demo.create_dataset("actions", data=["a"] * 4, dtype=h5py.string_dtype())


def with_a_plug_in(file: h5py.File, demo: h5py.Group) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 2))
    plan.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(demo.id, b"actions", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4, 2)), plan)


def with_a_bomb(file: h5py.File, demo: h5py.Group) -> None:
    demo.create_dataset("actions", (2**40, 2), "f4", chunks=(2**10, 2))  # takes no room while nothing is written


def with_a_group(file: h5py.File, demo: h5py.Group) -> None:
    demo["actions/x"] = 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_link, "data/demo_0/actions is a link, which is not followed"),
        (with_external_link, "data/demo_0/actions is a link, which is not followed"),
        (with_linked_episode, "demo_1/obs/x is a link, which is not followed"),
        (with_virtual_array, "actions lies in other files, which are not read"),
        (with_external_storage, "actions lies in other files, which are not read"),
        (with_objects, "actions must hold numbers, got object"),
        (with_a_plug_in, "actions needs filter 305, which is not used; write it with gzip"),
        (with_a_bomb, "actions would unfold to 8796093022208 bytes; 10737417.. more are read"),
        (with_a_group, "actions is a group and must be an array"),
        (lambda file, demo: None, "actions is missing"),
    ],
)
def test_nothing_outside_of_an_hdf5_file_is_read_and_nothing_runs(
    tmp_path: Path, damage: Callable[[h5py.File, h5py.Group], None], message: str
) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.ones((4, 2), np.float32)
    with h5py.File(tmp_path / "demo.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["obs/x"] = file["secret"] = np.ones((4, 2), np.float32)
        if damage is with_linked_episode:
            demo["actions"] = np.ones((4, 2), np.float32)
        damage(file, demo)
    refuse(tmp_path / "demo.hdf5", message)


# ---- zip files, zarr stores and LeRobot folders likewise ----


@pytest.mark.parametrize("name", ["/tmp/evil", "../evil", "a/../../evil", "..\\evil"])
def test_names_in_a_zip_file_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path, draw_episodes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    refuse(path, "in it leads elsewhere; zip the store again")


def test_a_zip_file_that_unfolds_too_far_or_holds_a_name_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path, draw_episodes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/zeros", bytes(2**22))
    monkeypatch.setattr(arrays, "SMALL_BYTES", 2**20)
    monkeypatch.setattr(arrays, "LARGEST_RATIO", 10)
    refuse(path, r"would unfold to \d+ bytes; at most 1048576 are read")
    monkeypatch.undo()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("data/zeros", b"")
    refuse(path, "holds two files of one name")
    path.write_bytes(path.read_bytes()[:-30])
    refuse(path, "can't be read as a zip file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "x")
    refuse(path, "holds no zarr store, neither at its top nor in one folder")


def test_what_a_zipped_store_needs_is_checked_as_in_a_folder(tmp_path: Path) -> None:
    path = write_zip(tmp_path, draw_episodes())
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}

    def rewrite(change: dict[str, bytes | None]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (files | change).items():
                if content is not None:
                    archive.writestr(name, content)

    rewrite({"data/action/0.0": None})
    refuse(path, r"data/action/0\.0 is missing, a chunk of the array|data/action holds . files and must have")
    rewrite({"data/action/.zarray": files["data/action/.zarray"].replace(b'"filters": null', b'"filters": ["pickle"]')})
    refuse(path, "data/action/.zarray: codec 'pickle' is not decoded")
    rewrite({"zarr.json": b"{}"})
    refuse(path, "metadata of two formats: remove the older")


def test_a_store_lacks_nothing(tmp_path: Path) -> None:
    path = write_zarr(tmp_path, draw_episodes())
    group: Any = zarr.open_group(path, mode="r+")
    group["meta/episode_ends"][1] = 3
    refuse(path, "meta/episode_ends must rise from above 0")
    shutil.rmtree(path / "data" / "action")
    refuse(path, "array data/action is missing")
    shutil.rmtree(path / "data")
    refuse(path, "holds no arrays of numbers in the group data")


def test_a_lerobot_dataset_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path, draw_episodes(), total_episodes=4)
    refuse(root, r"info\.json says total_episodes 4, its tables hold 3")
    shutil.rmtree(root)
    root = write_lerobot(tmp_path, draw_episodes())
    (root / "data/chunk-000/file-000.parquet").rename(root / "data/chunk-000/file-002.parquet")
    refuse(root, "steps are missing or out of order")
    shutil.move(root / "data/chunk-000", tmp_path / "away")
    (root / "data/chunk-000").symlink_to(tmp_path / "away")
    refuse(root, "chunk-000 is a link to a folder")
    (root / "data/chunk-000").unlink()
    refuse(root, "holds no data/chunk-")
    (root / "meta/info.json").write_text('{"codebase_version": "v1.6"}')
    refuse(root, "a LeRobot dataset of version v1.6; v2 and v3 are read")


# ---- Bringing them to a task ----


def fit(path: Path, spec: TaskSpec, bounds: str = "", **options: bool) -> Any:
    given = parse_bounds(bounds, 2) if bounds else None
    return fit_to_task(read_recording(path), spec, bounds=given, **{"clip": False, "keep_failures": False, **options})


def test_bounds_travel_with_the_demonstrations(tmp_path: Path) -> None:
    episodes = [(obs, 3 * action) for obs, action in draw_episodes()]
    path = write_minari(tmp_path, episodes, -3.0, 3.0)
    fitted = fit(path, make_spec(-3.0, 3.0))
    np.testing.assert_array_equal(fitted.episodes[0].action, episodes[0][1])
    with pytest.raises(DataError, match="are between -3:3, those of Toy between -1:1; --bounds=-3:3 scales them"):
        fit(path, make_spec())
    scaled = fit(path, make_spec(), "-3:3").episodes[0].action
    np.testing.assert_allclose(scaled, episodes[0][1] / 3, atol=1e-6)
    (path / "data/metadata.json").unlink()
    np.testing.assert_array_equal(fit(path, make_spec(-3.0, 3.0)).episodes[0].action, episodes[0][1])


def test_units_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    episodes = draw_episodes()
    path = write_zarr(tmp_path, episodes)
    with pytest.raises(DataError, match="say what they are in: --bounds=-1:1 scales them, --bounds=0:512 takes them"):
        fit(path, make_spec(0.0, 512.0))
    scaled = fit(path, make_spec(0.0, 512.0), "-1:1").episodes[0].action
    np.testing.assert_allclose(scaled, 256 * (episodes[0][1] + 1), atol=1e-4)
    assert fit(path, make_spec()).clipped_share == 0.0


def test_actions_beyond_their_bounds_are_clipped_only_when_asked(tmp_path: Path) -> None:
    episodes = draw_episodes()
    episodes[1][1][1, 0] = 1.5
    path = write_zarr(tmp_path, episodes)
    with pytest.raises(
        DataError, match=r"action 1\.5 in episode 1, step 1, column 0 is beyond its bounds, -1:1: --clip"
    ):
        fit(path, make_spec())
    fitted = fit(path, make_spec(), clip=True)
    assert fitted.episodes[1].action[1, 0] == 1.0
    assert fitted.clipped_share == 1 / 18


def test_episodes_that_failed_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    path = write_maniskill(tmp_path, draw_episodes(), success=(True, False, True))
    assert (len(fit(path, make_spec()).episodes), fit(path, make_spec()).num_failed) == (2, 1)
    assert len(fit(path, make_spec(), keep_failures=True).episodes) == 3
    path = write_maniskill(tmp_path, draw_episodes(), success=(False,) * 3)
    with pytest.raises(DataError, match="all 3 episodes failed, by what it says; --keep-failures takes them"):
        fit(path, make_spec())


def test_actions_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an action has 3 columns, one of Toy 2"):
        fit(write_zarr(tmp_path, draw_episodes(action_dim=3)), make_spec())


@pytest.mark.parametrize("text", ["1", "1:x", "2:1", "0:1,0:1,0:1", "0:inf", "0:1:2", ":"])
def test_bounds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--bounds must be LOW:HIGH, once or for each of 2 components"):
        parse_bounds(text, 2)


def test_bounds_read_back_as_they_are_shown() -> None:
    for text in ("-1:1", "0:512,-2:2"):
        assert show_bounds(parse_bounds(text, 2)) == text
    with pytest.raises(ArtifactError):
        recognise(Path("/dev/null"))
