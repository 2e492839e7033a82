"""`init` makes a project or nothing, and `run` hands Snakemake what was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.load import list_configured, load_config
from bmd_pipeline.config.places import PACKAGED
from bmd_pipeline.config.resources import usable_cores


def test_a_new_project_has_its_own_settings_and_the_packages_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "project"
    assert main(["init", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "Snakefile", "config", "profiles"]
    monkeypatch.chdir(folder)
    with Path("config", "config.yaml").open("a") as file:
        file.write("\nevaluate: {episodes: 48}\n")
    assert load_config("GaussianMixture", preset="cpu").evaluate.episodes == 48
    example = Path("config", "tasks", "MyVariant.yaml.example")
    lines = [line.removeprefix("# ") for line in example.read_text().splitlines()]
    example.with_suffix("").write_text("\n".join(lines[lines.index("#") + 1 :]))
    assert {"MyVariant", "PushT"} <= set(list_configured())
    assert load_config("MyVariant", preset="cpu").task.env["reward"] == "shifted"


@pytest.mark.workflow
def test_a_new_project_makes_what_the_package_makes_without_a_target(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    command = (sys.executable, "-m", "bmd_pipeline", "run", "--", "--dry-run", "--config", "tasks=[GaussianMixture]")
    done = subprocess.run(command, cwd=tmp_path / "new", capture_output=True, text=True, check=True)
    assert "results/GaussianMixture/eval.json" in done.stdout + done.stderr


@pytest.mark.parametrize("there", ["folder", "file"])
def test_init_refuses_what_is_there(tmp_path: Path, there: str, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    if there == "folder":
        mine.mkdir()
        (mine / "notes").write_text("mine")
    else:
        mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["init", str(mine)]) == 2
    assert f"error: {mine} is no" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_init_writes_into_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store" / "data").mkdir(parents=True)
    (tmp_path / "store" / "zarr.json").write_text("{}")
    assert main(["init", str(tmp_path / "store" / "data" / "new")]) == 2
    assert f"{tmp_path / 'store'} is a zarr store; write outside of it" in capsys.readouterr().err
    assert not list((tmp_path / "store" / "data").iterdir())


def test_init_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy", fail)
    assert main(["init", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'new'} can't be written: No space left on device\n"
    assert not list((tmp_path / "new").iterdir())


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What `run` starts, in an empty folder."""
    calls: list[list[str]] = []

    def record(_: str, command: list[str]) -> Any:
        calls.append(command)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(os, "execv", record)
    return calls


def test_run_starts_the_packages_workflow_on_the_cores_there_are(started: list[list[str]]) -> None:
    assert main(["run", "all", "results/b", "--", "--config", "preset=smoke"]) == 0
    begin = [sys.executable, "-m", "snakemake", "--snakefile", str(PACKAGED / "Snakefile")]
    assert started == [[*begin, "--cores", str(usable_cores()), "all", "results/b", "--config", "preset=smoke"]]
    assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["a", "--cores", "3"], ["--cores", "3", "a"]),
        (["a", "--", "--workflow-profile", "slurm"], ["a", "--workflow-profile", "slurm"]),
        (["a", "--", "-j2", "--config", "x=1"], ["a", "-j2", "--config", "x=1"]),
        (["--", "-j2"], ["-j2"]),  # no target: what Snakemake makes by itself, which is `all`
    ],
)
def test_cores_are_left_to_who_names_them(started: list[list[str]], words: list[str], given: list[str]) -> None:
    Path("Snakefile").touch()
    assert main(["run", *words]) == 0
    assert started[0][3:] == ["--snakefile", "Snakefile", *given]  # one's own wins


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["result/PushT/eval.json"], "result/PushT/eval.json is no target: name what to make below data/ or results/"),
        (["results/../../eval.json"], "results/../../eval.json is no target"),
        (["results/a", "--dry-run"], "No such option: --dry-run; Snakemake's own options go after -- (see"),
    ],
)
def test_run_refuses_what_can_be_no_target(
    started: list[list[str]], words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not started
