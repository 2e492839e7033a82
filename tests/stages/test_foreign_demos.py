"""Demonstrations of other projects by command: imported, exported, looked at."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.cli.stages import EXPORT_FORMATS
from bmd_pipeline.demos.exports import WRITERS
from bmd_pipeline.demos.store import DemoWriter, load_demos
from bmd_pipeline.environments.base import Episode
from bmd_pipeline.io.files import hash_tree
from bmd_pipeline.io.provenance import is_imported

from ..demos.layouts import LAYOUTS, draw_episodes, write_lerobot, write_robomimic, write_zarr, write_zip

ROOT = Path(__file__).parents[2]
TASK = ("--task", "GaussianMixture", "--preset", "smoke", "--quiet")
PLACE = Path("data/GaussianMixture-smoke/demos.zarr")
MANIFEST = PLACE.with_name("demos.manifest.json")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(capsys: pytest.CaptureFixture[str], message: str, *words: object) -> None:
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_file_is_converted_with_a_record_of_it_once(project: Path) -> None:
    path = write_robomimic(project, episodes := draw_episodes())
    command = ["import-demos", str(path), "--obs", "left,right", *TASK]
    assert main(command) == 0
    demos, record = load_demos(PLACE), json.loads(MANIFEST.read_text())
    np.testing.assert_array_equal(demos.obs, np.concatenate([obs for obs, _ in episodes]))
    np.testing.assert_array_equal(demos.action, np.concatenate([action for _, action in episodes]))
    assert demos.episode_ends.tolist() == [4, 6, 9]
    assert (demos.attributes["action_low"], demos.attributes["action_high"]) == ([-1.0] * 2, [1.0] * 2)
    assert is_imported(MANIFEST)
    assert record["outputs"] == {"demos.zarr": hash_tree(PLACE)}
    assert record["inputs"]["store"]["path"] == str(path)
    assert (record["format"], record["obs"]) == ("robomimic HDF5", ["obs/left", "obs/right"])
    assert (record["episodes"], record["steps"], record["failed_episodes"]) == (3, 9, 0)
    before = MANIFEST.read_bytes()
    assert main(command) == 0
    assert MANIFEST.read_bytes() == before
    assert main(["import-demos", str(path), "--obs", "right,left", *TASK]) == 0
    np.testing.assert_array_equal(load_demos(PLACE).obs, demos.obs[:, ::-1])


def test_what_cannot_be_imported_leaves_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_zarr(project, draw_episodes(3))
    refuse(capsys, "data/state has 3 columns, an observation of the task 2", "import-demos", path, *TASK)
    refuse(capsys, "--bounds must be LOW:HIGH", "import-demos", path, "--bounds=1", *TASK)
    assert not PLACE.parent.exists()


def test_a_store_in_its_place_is_not_read_in_another_way(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PLACE.parent.mkdir(parents=True)
    write_zarr(project, draw_episodes()).rename(PLACE)
    before = hash_tree(PLACE)
    refuse(capsys, f"{PLACE} is in its place, and is kept as it is", "import-demos", PLACE, "--clip", *TASK)
    assert main(["import-demos", str(PLACE), *TASK]) == 0
    assert hash_tree(PLACE) == before


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("zarr v2", "zarr v3")])
def test_who_needs_a_store_names_the_import(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = LAYOUTS[name](project, draw_episodes())
    advice = f"import it with `bmd-pipeline import-demos {path} --task GaussianMixture"
    refuse(capsys, advice, "pretrain", "--demos", path, *TASK)
    refuse(capsys, advice, "check-task", "GaussianMixture", "--preset", "smoke", "--demos", path)


def test_a_store_without_observations_of_a_known_name_is_to_be_imported(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_zarr(project, draw_episodes(), name="agent_pos")
    advice = f"import it with `bmd-pipeline import-demos {path} --task GaussianMixture"
    refuse(capsys, advice, "pretrain", "--demos", path, *TASK)
    assert main(["import-demos", str(path), *TASK]) == 0  # the only array that is no picture


def write_store(store: Path) -> None:
    with DemoWriter(store, 2, 2, {}, action_low=[-1.0] * 2, action_high=[1.0] * 2) as writer:
        for obs, action in draw_episodes():
            writer.append(Episode(obs, action, success=True, behaviour=0))


@pytest.mark.parametrize("to", EXPORT_FORMATS)
def test_what_is_exported_comes_back_the_same(project: Path, capsys: pytest.CaptureFixture[str], to: str) -> None:
    write_store(project / "mine.zarr")
    export = ["export-demos", "--to", to, "--demos", "mine.zarr", "--output", "theirs", *TASK]
    assert main(export) == 0
    assert main(["import-demos", "theirs", *TASK]) == 0
    before, after = load_demos(project / "mine.zarr"), load_demos(PLACE)
    for name in ("obs", "action", "episode_ends", "action_low", "action_high"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    refuse(capsys, "theirs is there already: delete it, or name another --output", *export)
    assert tuple(WRITERS) == EXPORT_FORMATS


def test_an_unknown_format_to_export_to_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    refuse(capsys, "--to must be one of zarr, lerobot, got 'rlds'", "export-demos", "--to", "rlds", *TASK)


def test_demonstrations_are_shown_as_text_json_and_picture(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lerobot(project, draw_episodes(3))
    assert main(["inspect-demos", str(path), "--picture", "mine.png"]) == 0
    shown = capsys.readouterr().out
    assert f"{path}: LeRobot v3.0, 3 episodes, 9 steps" in shown
    assert "steps of an episode: 2 to 4, median 3" in shown
    assert "observation.state[0] to the right, observation.state[1] upwards" in shown
    assert (project / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert main(["inspect-demos", str(path), "--json", "--plane", "2,0", "--picture", "mine.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    obs = np.concatenate([pair[0] for pair in draw_episodes(3)])
    assert [row["max"] for row in found["columns"]["obs"]] == obs.max(axis=0).tolist()
    assert all(sum(row["histogram"]) == 9 for row in (*found["columns"]["obs"], *found["columns"]["action"]))
    assert found["trajectories"]["columns"] == ["observation.state[2]", "observation.state[0]"]
    assert [len(points) for points in found["trajectories"]["points"]] == [4, 2, 3]


def test_what_cannot_be_shown_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_zip(project, draw_episodes())
    (project / "theirs.png").write_bytes(b"\x89PNG")
    refuse(capsys, "--plane must be two of 0 to 1, got 0,5", "inspect-demos", path, "--plane", "0,5")
    refuse(capsys, "--plane must be two numbers of columns", "inspect-demos", path, "--plane", "x,5")
    refuse(capsys, "theirs.png would be replaced", "inspect-demos", path, "--picture", "theirs.png")
    refuse(capsys, "its name must end in .png", "inspect-demos", path, "--picture", "mine.jpg")
    refuse(capsys, "no demonstrations at none", "inspect-demos", "none")
    assert (project / "theirs.png").read_bytes() == b"\x89PNG"


def test_the_commands_of_the_page_run_as_they_stand() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/data.md").read_text(), flags=re.DOTALL)
    for line in block.splitlines():
        program, *words = line.split()
        assert program == "bmd-pipeline"
        assert main([*words, *(["--quiet"] if "--task" in words else [])]) == 0, line
    np.testing.assert_array_equal(load_demos(Path("mine/demos.zarr")).obs, load_demos(PLACE).obs)
