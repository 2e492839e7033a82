"""The page of all tasks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.reporting.report import build_summary, load_results
from tests.reporting.made_up import MadeUpRun, write_sealed
from tests.reporting.made_up_evidence import make_grid
from tests.reporting.test_report import figures_of, text_of


def test_tasks_stand_side_by_side_and_link_to_their_pages(finished: MadeUpRun, tmp_path: Path) -> None:
    one = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    MadeUpRun(tmp_path, "Two", seeds=(0, 1, 2), methods=("dsrl", "dsrl-bmd"))
    one.layout.report("One").write_text("a page")
    page = build_summary(load_results(one.layout, ["One", "Two"]))
    words = text_of(page)
    assert "2 tasks, 5 policies, 440 evaluation episodes." in words
    assert page.count('href="One/report.html"') == 2
    assert "Two/report.html" not in page  # it has no page yet
    assert [title for title, _ in figures_of(page).values()] == [
        "One: success against modes",
        "Two: success against modes",
    ]
    marks = re.findall(r'class="mark[^"]*" style="--colour: var\(--policy-(\d)\)', page)
    assert marks == ["0", "1", "0", "2", "3"]  # colours are the page's, not the task's


def test_verdicts_are_told(finished: MadeUpRun) -> None:
    words = text_of(build_summary(load_results(finished.layout, ["Toy"])))
    assert "Toy Of 3 hypotheses, 1 is supported, 1 is refuted and 1 is undecided." in words


def test_a_grid_is_tabled_by_cell(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    write_sealed(run.layout.grid("One"), make_grid(run).model_dump(mode="json"))
    words = text_of(build_summary(load_results(run.layout, ["One"])))
    assert "One: means over 2 seeds of" in words
    modes = "1.0 of 3 [0.9, 1.0] 1.0 of 3 [0.9, 1.0] 1.00 [0.95, 1.00] 100.0 % [95.0, 100.0]"
    assert f"mi_weight=10 dsrl-bmd 70.0 % [66.5, 72.1] {modes}" in words


def test_a_summary_without_a_grid_says_nothing_of_grids(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    assert "Grids" not in text_of(build_summary(load_results(run.layout, ["One"])))


def test_a_grid_of_another_task_is_refused(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    write_sealed(run.layout.grid("One"), make_grid(run).model_dump(mode="json") | {"task": "Other"})
    with pytest.raises(ArtifactError, match=r"grid\.json: grid of task Other, not of One"):
        load_results(run.layout, ["One"])


def test_a_task_without_results_is_named(finished: MadeUpRun) -> None:
    with pytest.raises(ArtifactError, match=r"results/Other/eval\.json is missing: make it with"):
        load_results(finished.layout, ["Toy", "Other"])
