"""The page of all tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_json
from bmd_pipeline.metrics.schemas import Grid
from bmd_pipeline.reporting.report import build_summary, load_results
from tests.reporting.made_up import MadeUpRun
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


def test_a_grid_is_tabled_by_codes_and_weight(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    write_json(run.layout.grid("One"), make_grid(run, "One"))
    page = build_summary(load_results(run.layout, ["One"]))
    words = text_of(page)
    assert "One: means over 2 seeds of" in words
    modes = "4.0 of 4 [4.0, 4.0] 3.2 of 4 [2.8, 3.6] 1.20 [1.10, 1.30] 90.0 % [85.0, 95.0]"
    assert f"dsrl-bmd 8 0.5 90.0 % [88.0, 92.0] {modes}" in words
    assert "dsrl-bmd 8 occupancy 90.0 %" in words
    assert "dsrl – – 90.0 %" in words


def test_a_summary_without_a_grid_says_nothing_of_grids(finished: MadeUpRun) -> None:
    assert "Grids" not in text_of(build_summary(load_results(finished.layout, ["Toy"])))


def test_a_grid_of_another_task_is_refused(tmp_path: Path) -> None:
    run = MadeUpRun(tmp_path, "One", seeds=(0,), methods=("res",))
    write_json(run.layout.grid("One"), make_grid(run, "Other"))
    with pytest.raises(ArtifactError, match=r"grid\.json: grid of task Other, not of One"):
        load_results(run.layout, ["One"])


def make_grid(run: MadeUpRun, task: str) -> dict[str, Any]:
    """grid.json with codes at one λ and at none's choice but the controller's, and a method without codes."""

    def score(value: float, radius: float) -> dict[str, Any]:
        around = {"value": value, "low": value - radius, "high": value + radius}
        return {"mean": around, "iqm": around, "seeds": [value] * 2}

    metrics = {
        "success_rate": score(0.9, 0.02),
        "present": score(4.0, 0.0),
        "solved": score(3.2, 0.4),
        "mode_entropy": score(1.2, 0.1),
        "obeyed": score(0.9, 0.05),
        "obeyed_worst": score(0.8, 0.1),
    }
    cells = [("dsrl", None, None, None), ("dsrl-bmd", 8, "constant", 0.5), ("dsrl-bmd", 8, "occupancy", None)]
    return Grid.model_validate(
        {
            "schema_version": 3,
            "task": task,
            "config_hash": "grid-settings",
            "confidence": 0.95,
            "labelling": "way",
            "total_modes": 4,
            "tau": 0.8,
            "seeds": [0, 1],
            "episodes_per_seed": run.episodes,
            "cells": [
                {"method": method, "num_modes": codes, "controller": who, "weight": weight, "folder": "grid"}
                | {"metrics": metrics}
                for method, codes, who, weight in cells
            ],
            "provenance": run.trace("grid", {}).model_dump(),
        }
    ).model_dump(mode="json")


def test_a_task_without_results_is_named(finished: MadeUpRun) -> None:
    with pytest.raises(ArtifactError, match=r"results/Other/eval\.json is missing: make it with"):
        load_results(finished.layout, ["Toy", "Other"])
