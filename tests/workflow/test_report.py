"""The targets `report.html` and `summary.html`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import Project

pytestmark = pytest.mark.workflow

PAGE = "results/GaussianMixture-smoke/report.html"
SUMMARY = "results/summary-smoke.html"


def test_a_page_brings_verdict_and_comparison_but_no_grid(project: Project) -> None:
    jobs = project.plan("grid={axes: {finetune.regulariser.mi_weight: [0, 1]}}", target=PAGE)
    assert jobs["report"] == jobs["verdict"] == jobs["compare"] == jobs["summarise"] == 1
    assert jobs["finetune"] == 2  # the two methods; a grid would train in every cell
    assert "grid" not in jobs


def test_a_grid_that_is_there_is_shown(project: Project) -> None:
    grid = project.folder / "results/GaussianMixture-smoke/grid.json"
    grid.parent.mkdir(parents=True)
    grid.write_text(json.dumps({}))
    axes = "grid={axes: {finetune.regulariser.mi_weight: [0, 1]}}"
    assert project.plan(axes, target=PAGE)["grid"] == 1  # and made anew, if it is stale


def test_clips_are_made_only_for_who_asks(project: Project) -> None:
    assert "play" not in project.plan(target=PAGE)
    videos = "results/GaussianMixture-smoke/videos"
    assert project.plan(target=f"{videos}/expert.json") == {"play": 1}
    jobs = project.plan(target=f"{videos}/dsrl-bmd-seed3.json")
    assert jobs == {"collect": 1, "pretrain": 1, "discover": 1, "finetune": 1, "play_policy": 1}


def test_summary_without_results_is_refused(project: Project) -> None:
    done = project.snakemake("--dry-run", "--cores", "1", "results/summary.html")
    assert done.returncode != 0
    assert "error: no task has results yet" in done.stderr + done.stdout


def test_pages_are_made_once(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    settings = ("--config", "preset=smoke", "seeds=[0]")
    done = project.snakemake("--cores", "2", SUMMARY, *settings)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (project.folder / PAGE).is_file()
    assert 'href="GaussianMixture-smoke/report.html"' in (project.folder / SUMMARY).read_text()
    assert project.plan(target=SUMMARY) == {}
    clip = project.folder / "results/GaussianMixture-smoke/videos/mine.gif"
    clip.parent.mkdir()
    clip.write_bytes(b"GIF89a")
    assert project.plan(target=PAGE) == {"report": 1}  # a clip that somebody made is shown
