"""Tasks, seeds, methods and axes of a grid as lists: what a plan holds, and what an edit repeats.

All on dry runs over one state: every output of a grid stands there, empty, as if made by the present settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmd_pipeline.io.files import hash_tree, write_json
from bmd_pipeline.io.layout import MANIFEST_FILE, METRICS_FILE

from .conftest import ROOT, Project, count_jobs, make_project

pytestmark = pytest.mark.workflow

WEIGHT, CODES = "finetune.regulariser.mi_weight", "discover.num_modes"
LISTS: dict[str, Any] = {
    "preset": "smoke",
    "tasks": ["GaussianMixture", "AvoidPoint"],
    "seeds": [0, 1],
    "methods": ["dsrl", "dsrl-bmd"],
    "discover": {"clustering": "kmeans"},
    "grid": {"axes": {WEIGHT: [0.1, 0.5], CODES: [2, 3]}},
    "finetune": {"regulariser": {"mi_weight": 0.5}},
}
"""λ 0.5 and K 2 are the run's own, so one of the four cells of each seed is the run's own result."""
EXAMPLE = "config/grids/example.yaml"
RUN = {"collect": 2, "pretrain": 2, "discover": 4, "finetune": 8, "evaluate": 16, "summarise": 2}
GRID = RUN | {"grid_discover": 4, "grid_finetune": 12, "grid_evaluate": 12, "grid": 2}


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the grid is made; tests only plan on it."""
    project = make_project(tmp_path_factory.mktemp("crossed") / "project")
    (project.folder / "lists.yaml").write_text(yaml.safe_dump(LISTS))
    arguments = ("--cores", "1", "--configfile", "lists.yaml")
    planned = project.snakemake("--dry-run", *arguments)
    assert count_jobs(planned) == GRID
    for line in re.findall(r"^ +output: (.*)$", planned.stdout + planned.stderr, flags=re.MULTILINE):
        for name in line.split(", "):
            path = project.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=True) if path.suffix == ".zarr" else path.touch()
            if path.name == "policy.json":  # a policy without a training's metrics would be somebody's own
                (path.parent / METRICS_FILE).touch()
    for manifest in project.folder.rglob(MANIFEST_FILE):
        store = manifest.with_name("demos.zarr")
        write_json(manifest, {"outputs": {store.name: hash_tree(store)}})
    # records them as made; without the look at what would be replaced, which empty files don't pass
    touched = project.snakemake("--touch", "--forceall", "--no-hooks", *arguments)
    assert touched.returncode == 0, touched.stderr
    assert project.plan_lists(LISTS) == {}
    return project


def test_another_seed_runs_its_own_jobs_alone(crossed: Project) -> None:
    new = {"discover": 2, "finetune": 4, "evaluate": 8, "grid_discover": 2, "grid_finetune": 6, "grid_evaluate": 6}
    assert crossed.plan_lists(LISTS | {"seeds": [0, 1, 7]}) == {**new, "summarise": 2, "grid": 2}


def test_another_weight_repeats_no_collection_pretraining_or_discovery(crossed: Project) -> None:
    added = {WEIGHT: [0.1, 0.5, 2.0], CODES: [2, 3]}
    assert crossed.plan_lists(LISTS | {"grid": {"axes": added}}) == {"grid_finetune": 8, "grid_evaluate": 8, "grid": 2}
    # the runs' own λ changed: their results are another cell, and what was theirs is now made beside it
    moved = crossed.plan_lists(LISTS | {"finetune": {"regulariser": {"mi_weight": 0.7}}})
    again = {"finetune": 4, "evaluate": 4, "summarise": 2, "grid_finetune": 4, "grid_evaluate": 4, "grid": 2}
    assert moved == again


def test_another_number_of_codes_discovers_once_a_seed(crossed: Project) -> None:
    added = {WEIGHT: [0.1, 0.5], CODES: [2, 3, 4]}
    new = {"grid_discover": 4, "grid_finetune": 8, "grid_evaluate": 8, "grid": 2}
    assert crossed.plan_lists(LISTS | {"grid": {"axes": added}}) == new


def test_another_method_or_task_leaves_the_others_alone(crossed: Project) -> None:
    plain = {"finetune": 4, "evaluate": 4, "summarise": 2}  # it has no cells
    assert crossed.plan_lists(LISTS | {"methods": ["dsrl", "dsrl-bmd", "res"]}) == plain
    more = [*LISTS["tasks"], "GaussianMixtureShifted"]
    assert crossed.plan_lists(LISTS | {"tasks": more}) == {rule: count // 2 for rule, count in GRID.items()}


def test_code_of_fine_tuning_reruns_it_and_what_follows(crossed: Project, edited_source: Path) -> None:
    again = {rule: GRID[rule] for rule in ("finetune", "grid_finetune", "grid_evaluate", "summarise", "grid")}
    assert crossed.plan_lists(LISTS, PYTHONPATH=str(edited_source)) == {**again, "evaluate": 8}  # not the pre-trained


def test_settings_in_another_form_rerun_nothing(crossed: Project) -> None:
    for path in (crossed.folder / "config").rglob("*.yaml"):
        values = yaml.safe_load(path.read_text()) or {}
        path.write_text(f"# rewritten\n{yaml.safe_dump(dict(reversed(values.items())), default_flow_style=True)}")
    assert crossed.plan_lists(dict(reversed(LISTS.items()))) == {}


def test_the_summary_asks_for_the_tasks_that_are_named(project: Project) -> None:
    jobs = project.plan_lists(LISTS, "results/summary-smoke.html")
    assert (jobs["summary"], jobs["report"], jobs["grid"]) == (1, 2, 2)


def test_the_grid_that_we_ship_plans(project: Project) -> None:
    done = project.snakemake("--dry-run", "-p", "--cores", "2", "results/summary.html", "--configfile", EXAMPLE)
    (planned,) = re.findall(r"bmd-pipeline summary (.*) 2>&1", done.stdout + done.stderr)
    assert sorted(planned.split()) == sorted(yaml.safe_load((ROOT / EXAMPLE).read_text())["tasks"])
    jobs = count_jobs(done)
    assert {rule: jobs[rule] for rule in ("collect", "finetune", "grid", "report", "summary")} == {
        "collect": 2,
        "finetune": 2 * 3 * 5,
        "grid": 2,
        "report": 2,
        "summary": 1,
    }
    assert jobs["grid_finetune"] >= 2 * 2 * 5 * (3 * 3 - 1)  # two methods with codes, five seeds, K × λ


def test_files_of_settings_that_commands_name_are_there_or_the_readers_own() -> None:
    own = {"mine.yaml"}
    texts = [
        ROOT / "README.md",
        ROOT / "Snakefile",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("workflow/profiles/*/*.yaml"),
    ]
    named = {name for text in texts for name in re.findall(r"--configfile[ =]([\w./-]+\.yaml)", text.read_text())}
    assert EXAMPLE in named
    assert [name for name in named - own if not (ROOT / name).is_file()] == []


def test_a_pool_makes_every_base_policy_from_demonstrations_on(project: Project) -> None:
    pool = ('pool={"bases": [0, 5]}',)
    jobs = project.plan(*pool, target="results/GaussianMixtureShifted-smoke/pool.json")
    each = {"collect": 1, "pretrain": 1, "discover": 1, "finetune": 2, "evaluate": 4, "summarise": 1}
    assert jobs == {rule: 2 * count for rule, count in each.items()} | {"pool": 1}
    # one of them by itself is a task like any other
    assert project.plan(*pool, target="results/GaussianMixtureShifted-base5-smoke/eval.json") == each


def test_a_cell_outside_the_axes_is_refused(project: Project) -> None:
    target = "results/GaussianMixture-smoke/grid/num_modes=9/dsrl-bmd/seed0/eval.json"
    settings = ('set=["grid.axes={discover.num_modes: [2]}"]', "preset=smoke")
    done = project.snakemake("--dry-run", "--cores", "1", target, "--config", *settings)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == ("error: grid.axes makes no cell 'num_modes=9'; did you mean 'num_modes=2'?")


def test_two_axes_two_tasks_and_nine_seeds_plan_a_thousand_jobs(project: Project) -> None:
    """What planning them takes is in docs/results/speed.md, made by `benchmarks.growth`."""
    grid = {"axes": {WEIGHT: [0.03, 0.1, 0.3, 1.0, 3.0], CODES: [2, 4, 8, 16, 32]}}
    jobs = project.plan_lists(
        {"tasks": ["AvoidPoint", "PushT"], "methods": ["dsrl", "dsrl-bmd"], "seeds": list(range(9)), "grid": grid}
    )
    assert 1000 <= sum(jobs.values()) <= 1200, jobs
