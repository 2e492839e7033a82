"""Comparison, verdict and a grid of λ: what they need, and what they never repeat."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import Project

pytestmark = pytest.mark.workflow

RESULTS = "results/GaussianMixture-smoke"
GRID = {"grid_finetune": 2, "grid_evaluate": 2, "grid": 1}
AXES = "grid={axes: {finetune.regulariser.mi_weight: [0, 0.1]}}"


def test_comparison_and_verdict_read_what_evaluation_left(finished: Project) -> None:
    assert finished.plan(target=f"{RESULTS}/compare.json") == {"compare": 1}
    assert finished.plan(target=f"{RESULTS}/verdict.json") == {"verdict": 1}


def test_another_threshold_evaluates_nothing_again(finished: Project) -> None:
    for setting in ("verdict.success_margin=0.1", "compare.min_seeds=3"):
        assert finished.plan(f"set=[{setting}]", target=f"{RESULTS}/verdict.json") == {"verdict": 1}
        assert finished.plan(f"set=[{setting}]") == {}


def test_a_grid_shares_all_that_it_does_not_change(finished: Project, project: Project) -> None:
    target = f"{RESULTS}/grid.json"
    assert finished.plan(AXES, target=target) == GRID
    own = "grid={axes: {finetune.regulariser.mi_weight: [0, 0.1, 0.5]}}"  # .5 is the run's own
    assert finished.plan(own, target=target) == GRID
    assert project.plan(AXES, target=target) == {"collect": 1, "pretrain": 1, "discover": 1, **GRID}
    done = finished.snakemake("--dry-run", "--cores", "1", target, "--config", "preset=smoke")
    assert done.stderr.splitlines()[-1].startswith("error: grid.axes is empty: name settings")


def test_one_cell_is_a_target_and_an_unknown_one_is_refused(finished: Project) -> None:
    cells, method = f"{RESULTS}/grid", "dsrl-bmd/seed0/eval.json"
    assert finished.plan(AXES, target=f"{cells}/mi_weight=0/{method}") == {"grid_finetune": 1, "grid_evaluate": 1}
    done = finished.snakemake("--dry-run", f"{cells}/mi_weight=0.6/{method}", "--config", "preset=smoke", AXES)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith("error: grid.axes makes no cell 'mi_weight=0.6'; did you mean")


def test_a_grid_runs(copy_of_finished: Callable[[], Project]) -> None:
    project = copy_of_finished()
    target, axes = f"{RESULTS}/grid.json", "grid={axes: {discover.num_modes: [3]}}"
    settings = ("preset=smoke", "seeds=[0]", "methods=[dsrl-bmd]", axes)
    done = project.snakemake("--cores", "2", target, "--config", *settings)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads((project.folder / target).read_text())
    assert [cell["name"] for cell in document["cells"]] == ["num_modes=3"]
    assert document["cells"][0]["changes"] == {"discover.num_modes": 3, "discover.clustering": "kmeans"}
    for name in ("num_modes=3/modes/seed0/modes.json", "num_modes=3/dsrl-bmd/seed0/eval.json"):
        assert (project.folder / RESULTS / "grid" / name).is_file()
    assert project.plan("methods=[dsrl-bmd]", axes, target=target) == {}
    # the page shows it, whether its axes are named again or not, and under other methods of the run
    page = project.snakemake("--cores", "2", f"{RESULTS}/report.html", "--config", "preset=smoke", "seeds=[0]")
    assert page.returncode == 0, page.stderr + page.stdout
    assert "success and modes in the grid" in (project.folder / RESULTS / "report.html").read_text()
    assert project.plan(target=f"{RESULTS}/report.html") == {}


def test_a_verdict_without_a_pair_is_refused(project: Project) -> None:
    done = project.snakemake("--dry-run", f"{RESULTS}/verdict.json", "--config", "preset=smoke", "methods=[dsrl]")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "error: methods: a verdict needs a -bmd method and its plain counterpart, got dsrl"
    )


def test_modes_are_validated_without_fine_tuning(finished: Project, project: Project) -> None:
    target = f"{RESULTS}/modes/validation.json"
    assert finished.plan(target=target) == {"validation": 1}
    assert project.plan(target=target) == {"collect": 1, "pretrain": 1, "discover": 1, "validation": 1}
