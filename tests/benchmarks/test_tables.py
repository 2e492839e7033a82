"""The result tables: rows from made-up runs, and documents that agree with docs/results/table.json."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import tables
from benchmarks.results_table import TABLE, ResultsTable, load_table, save_table
from benchmarks.tables import collect, fill, join, list_documents, render_table, write
from bmd_pipeline.config.overrides import configure_base
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_text
from bmd_pipeline.io.layout import METRICS_FILE, Layout
from bmd_pipeline.io.provenance import RunStart, describe_run, write_run
from bmd_pipeline.methods import is_finetuned, uses_modes
from tests.metrics.drawn import NAMES, make_episodes
from tests.stages.evaluations import write_evaluation

TASK = "GaussianMixture"
CONFIG = RunConfig.model_validate({"task": {"name": TASK}, "seeds": (0,)})
SUCCESSES = {0: 90, 4: 80, 7: 100}
"""Of 100 episodes, by base policy."""


def write_base(root: Path, base: int, method: str, *, form: str = "coded", seed: int = 0) -> None:
    """A run of one base policy: four modes in turn, of which the code decides nothing or all."""
    config, layout = configure_base(CONFIG, base), Layout(root)
    task, mode = config.task.name, np.arange(100) % 4
    part = make_episodes(method, seed, mode, np.arange(100) < SUCCESSES[base], 4)
    if uses_modes(method):
        part = replace(part, num_codes=4, code=mode, behaviours={"goal": NAMES})
    folder = layout.finetuned(task, method, seed)
    write_evaluation(config, layout.evaluation(task, method, seed), part)
    if is_finetuned(method):
        times = {"wall_s": 8.0, "cpu_seconds": 9.0}
        lines = [
            {"step": k, **times, "losses/policy_steps": 4.0, "rollout/control_steps": 1000.0 * (base + 1)}
            for k in (1, 2, 3)
        ]
        write_text(folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    records = {layout.policy(task): "pretrain", layout.modes(task, seed): "discover"}
    records |= {folder: "finetune"} if is_finetuned(method) else {}
    for path, stage in records.items():
        path.mkdir(parents=True, exist_ok=True)
        settings = {"discover": {"form": form}} if stage == "discover" else {}
        extra = {"kept": {"iteration": 2}} if stage == "finetune" else {}
        write_run(
            path,
            describe_run(
                stage=stage,
                task=task,
                config=settings,
                config_hash="",
                seed=seed,
                inputs={},
                start=RunStart(print),
                extra=extra,
            ),
            outputs=(),
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for base in SUCCESSES:
        for method in ("pretrained", "taught", "dppo-bmd"):
            write_base(folder, base, method)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def test_rows_are_means_over_base_policies(root: Path) -> None:
    rows = {row.method: row for row in collect([root], TASK, methods=(), variant="lambda 0", world=None)}
    assert {method: (row.form, row.variant) for method, row in rows.items()} == {
        "pretrained": ("none", ""),
        "taught": ("coded", ""),
        "dppo-bmd": ("coded", "lambda 0"),
    }
    # what is named has another base policy, such as one trained for more steps
    assert collect([root], TASK, methods=["pretrained"], variant="longer", world=None)[0].variant == "longer"
    row = rows["dppo-bmd"]
    values = np.array([0.9, 0.8, 1.0])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert row.success_rate.model_dump() == pytest.approx({"mean": 0.9, "low": low, "high": min(high, 1.0)})
    assert [(base.base, base.success_rate) for base in row.bases] == [(0, 0.9), (4, 0.8), (7, 1.0)]
    assert (row.present.mean, row.total_modes, row.seeds, row.episodes) == (4, 4, [0], 100)
    assert {method: row.obeyed.mean for method, row in rows.items()} == pytest.approx(
        {"pretrained": 0.25, "taught": 1.0, "dppo-bmd": 1.0}
    )
    assert len(row.codes) == 3 * 4
    assert {code.obeyed for code in row.codes} == {1.0}
    assert [mode.share for mode in row.modes] == pytest.approx([0.25] * 4, abs=0.01)
    assert row.world == "own"


def test_what_a_blocked_favourite_costs_stands_beside_it(root: Path) -> None:
    """Four modes in turn; one of a policy without codes can only try again, one with codes be told another."""
    rows = {row.method: row for row in collect([root], TASK, methods=(), variant="", world=None)}
    plain, coded = rows["pretrained"].further, rows["dppo-bmd"].further
    assert "blocked/favourite/told/success" not in plain
    mean = np.mean([SUCCESSES[base] / 100 for base in SUCCESSES])
    assert plain["blocked/favourite/retry/success"].mean == pytest.approx(0.75 * mean, abs=0.05)
    assert coded["blocked/favourite/told/success"].mean == pytest.approx(mean, abs=0.05)
    assert coded["mode_spread"].mean == pytest.approx(0.1)
    cells = render_table(
        ResultsTable(schema_version=1, rows=list(rows.values())), f"{TASK}; columns: policy told spread finds_trials"
    ).splitlines()
    assert "| pretrained | – | .1000 | – |" in cells
    assert not any("–" in line for line in cells if line.startswith("| dppo-bmd |"))


def test_costs_are_those_of_all_training(root: Path) -> None:
    rows = {row.method: row for row in collect([root], TASK, methods=(), variant="", world=None)}
    costs = rows["dppo-bmd"].costs
    assert (costs.iterations, costs.gradient_steps, costs.gradient_steps_kept) == (3, 12, 8)
    assert costs.control_steps == pytest.approx(3 * np.mean([1000, 5000, 8000]))
    assert costs.control_steps_kept == pytest.approx(2 * np.mean([1000, 5000, 8000]))
    assert (costs.cpu_seconds, costs.wall_s) == (9, 8)
    before = rows["taught"].costs
    assert (before.iterations, before.control_steps) == (None, None)
    assert before.cpu_seconds > 0


def test_one_base_policy_has_the_interval_of_its_episodes(tmp_path: Path) -> None:
    write_base(tmp_path, 0, "dppo")
    (row,) = collect([tmp_path], TASK, methods=["dppo"], variant="", world="delay 1")
    assert row.success_rate.mean == 0.9
    assert row.success_rate.low == pytest.approx(0.8256, abs=1e-4)  # Wilson, 90 of 100
    assert (row.world, row.form) == ("delay 1", "none")


def test_what_does_not_fit_is_refused(root: Path, tmp_path: Path) -> None:
    def refuse(match: str, *roots: Path, method: str = "dppo-bmd") -> None:
        with pytest.raises(ArtifactError, match=match) as error:
            collect(roots, TASK, methods=[method], variant="", world=None)
        assert "\n" not in str(error.value)

    refuse("hold no evaluation of res on GaussianMixture", root, method="res")
    refuse("base policy 0, seed 0 was found before", root, root)
    other = tmp_path / "other"
    write_base(other, 0, "dppo-bmd", form="unknown")
    refuse(r"its settings have no discover\.form; discover the modes again", other)
    write_base(root, 4, "dppo-bmd", seed=1)
    refuse("base policy 4 has other seeds than base policy 0", root)


def test_rows_made_again_take_the_place_of_the_old(root: Path, tmp_path: Path) -> None:
    rows = collect([root], TASK, methods=(), variant="", world=None)
    table = ResultsTable(schema_version=1, rows=[]).with_rows(rows)
    assert [row.method for row in table.rows] == ["pretrained", "taught", "dppo-bmd"]
    assert table.with_rows(rows[:1]) == table
    path = tmp_path / "table.json"
    save_table(table, path)
    assert load_table(path) == table
    document = json.loads(path.read_text())
    document["rows"][0]["episodes"] = "100"
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"rows\.0\.episodes: Input should be a valid integer"):
        load_table(path)
    document["rows"][0]["episodes"] = 100
    document["rows"].append(document["rows"][0])
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="two rows are GaussianMixture, own, pretrained, none"):
        load_table(path)


def list_values(part: Any) -> list[Any]:
    """All names and values of nested ones, in their order."""
    if isinstance(part, dict):
        return [value for key, inner in part.items() for value in (key, *list_values(inner))]
    return [value for inner in part for value in list_values(inner)] if isinstance(part, list) else [part]


def test_rows_of_other_base_policies_are_joined_as_if_they_had_been_collected_together(tmp_path: Path) -> None:
    roots = tmp_path / "first", tmp_path / "second", tmp_path / "together"
    for base in SUCCESSES:
        for folder in (roots[base == 7], roots[2]):
            write_base(folder, base, "dppo-bmd")
    first, second, together = (collect([root], TASK, methods=(), variant="", world=None)[-1] for root in roots)
    joined = join(first, second)
    for ours, theirs in zip(list_values(joined.model_dump()), list_values(together.model_dump()), strict=True):
        assert ours == (pytest.approx(theirs) if isinstance(theirs, float) else theirs)
    with pytest.raises(ArtifactError, match=f"{TASK}, .*: base policy 7 is in the table"):
        join(joined, second)
    with pytest.raises(ArtifactError, match="episodes 7, in the table 100"):
        join(first, second.model_copy(update={"episodes": 7}))


def test_a_table_is_written_between_its_marks(root: Path) -> None:
    rows = collect([root], TASK, methods=(), variant="lambda 0", world=None)
    table = ResultsTable(schema_version=1, rows=[]).with_rows(rows)
    name = f"{TASK}; columns: policy success solved control_steps"
    text = f"before\n\n<!-- table: {name} -->\nold\n<!-- end table -->\nafter\n"
    filled = fill(text, table)
    assert filled.startswith("before\n")
    assert filled.endswith("<!-- end table -->\nafter\n")
    assert "old" not in filled
    assert "| dppo-bmd, lambda 0 | .900 [.652, 1.000] (.900, .800, 1.000) |" in filled
    assert "| 14 k |" in filled
    assert fill(filled, table) == filled
    assert render_table(table, "Kitchen") == f"{tables.EMPTY}\n"
    chosen = render_table(table, f"{TASK}; rows: taught | dppo-bmd, lambda 0; columns: policy")
    assert [line.split("|")[1].strip() for line in chosen.splitlines()[2:]] == ["taught", "dppo-bmd, lambda 0"]
    with pytest.raises(ArtifactError, match="no row 'dppo, lambda 0'"):
        render_table(table, f"{TASK}; rows: taught | dppo, lambda 0")
    with pytest.raises(ArtifactError, match="no part 'row'"):
        render_table(table, f"{TASK}; row: taught")
    with pytest.raises(ArtifactError, match="no column 'sucess'"):
        render_table(table, f"{TASK}; columns: sucess")


def test_writing_touches_only_what_changes(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (tmp_path / "README.md").write_text("no tables\n")
    page = results / "page.md"
    page.write_text(f"<!-- table: {TASK} -->\n<!-- end table -->\n")
    write(tmp_path, ResultsTable(schema_version=1, rows=collect([root], TASK, methods=(), variant="", world=None)))
    assert (tmp_path / "README.md").read_text() == "no tables\n"
    assert "| dppo-bmd | coded | .900" in page.read_text()


def test_the_documents_agree_with_the_table() -> None:
    table = load_table(tables.ROOT / TABLE)
    for path in list_documents(tables.ROOT):
        text = path.read_text(encoding="utf-8")
        assert text.count("<!-- table:") == text.count("<!-- end table -->"), path
        assert fill(text, table) == text, f"{path}: run python -m benchmarks.tables write"
    assert "<!-- table:" in (tables.ROOT / "README.md").read_text(encoding="utf-8")
