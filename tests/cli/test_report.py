"""The commands `report` and `summary`: one line and exit status 2 where there is nothing to show."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bmd_pipeline.cli.main import main
from tests.reporting.made_up import MadeUpRun

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project: settings, and no data or results."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "report --task PushT",
            "results/PushT/eval.json is missing: make it with `bmd-pipeline summarise --task PushT`",
        ),
        ("summary", "no task has results"),
        ("summary PushT", "results/PushT/eval.json is missing: make it with `snakemake"),
    ],
)
def test_nothing_to_show(project: Path, capsys: pytest.CaptureFixture[str], command: str, message: str) -> None:
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(project.rglob("*.html"))


def test_results_of_other_settings_make_no_page(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MadeUpRun(project, "GaussianMixture", seeds=(0, 1, 2))
    asked = ("--set", "methods=[dsrl, dsrl-bmd]", "--set", "discover.form=published")
    assert main(["report", "--task", "GaussianMixture", *asked]) == 2
    assert "pretrained was evaluated under other settings than the present ones" in capsys.readouterr().err
    assert not list(project.rglob("*.html"))


def test_summary_writes_its_page(project: Path) -> None:
    MadeUpRun(project, seeds=(0,))
    assert main(["summary", "--quiet"]) == 0
    assert (project / "results" / "summary.html").read_text().startswith("<!doctype html>")
    assert main(["summary", "Toy", "--quiet", "--output", "elsewhere.html"]) == 0
    assert (project / "elsewhere.html").is_file()
    (project / "there").mkdir()
    (project / "results").rename(project / "there" / "results")
    assert main(["summary", "--quiet", "--root", "there"]) == 0
