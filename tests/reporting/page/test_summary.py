"""The page of all tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.reporting.page.summary import build_summary, load_results
from tests.reporting.page.made_up import MadeUpRun
from tests.reporting.page.test_report import data_of, text_of


def test_tasks_stand_side_by_side_and_link_to_their_pages(finished: MadeUpRun, tmp_path: Path) -> None:
    one = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    MadeUpRun(tmp_path, "Two", seeds=(0, 1, 2), methods=("dsrl", "dsrl-bmd"))
    one.layout.report("One").write_text("a page")
    page = build_summary(load_results(one.layout, ["One", "Two"]))
    words = text_of(page)
    assert "2 tasks, 5 policies, 440 evaluation episodes." in words
    assert page.count('href="One/report.html"') == 2
    assert "Two/report.html" not in page  # it has no page yet
    tasks = data_of(page)["tasks"]
    assert [[policy["name"] for policy in task["policies"]] for task in tasks] == [
        ["pretrained", "res"],
        ["pretrained", "dsrl", "dsrl-bmd"],
    ]
    assert [policy["index"] for policy in tasks[1]["policies"]] == [0, 2, 3]  # colours are the page's, not the task's


def test_verdicts_are_told(finished: MadeUpRun) -> None:
    words = text_of(build_summary(load_results(finished.layout, ["Toy"])))
    assert "Toy Of 3 hypotheses, 1 is supported, 1 is refuted and 1 is undecided." in words


def test_a_task_without_results_is_named(finished: MadeUpRun) -> None:
    with pytest.raises(ArtifactError, match=r"results/Other/eval\.json is missing: make it with"):
        load_results(finished.layout, ["Toy", "Other"])
