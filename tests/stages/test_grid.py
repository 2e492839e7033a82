"""The stage `grid`, on made-up runs."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.config.overrides import list_cells
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.episodes import load_episodes
from bmd_pipeline.metrics.schemas import Grid, load_document
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.grid import grid
from tests.metrics.drawn import draw_episodes
from tests.stages.evaluations import write_evaluation, write_grid_runs
from tests.stages.small import QUIET

TASK, METHOD = "GaussianMixture", "dppo-bmd"
WEIGHT, FED = "finetune.regulariser.mi_weight", "finetune.balance_codes"
KINDS = {
    "mi_weight=0": (0.98, [2000, 1, 1, 1]),
    "mi_weight=0.1": (0.98, [1, 1, 1, 1]),
    "mi_weight=0.5": (0.98, [1, 1, 1, 1]),  # the run's own
    "mi_weight=10": (0.6, [1, 1, 1, 1]),
}


def make_config(axes: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    axes = axes or {WEIGHT: (10.0, 0.0, 0.1, 0.5)}
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "seeds": (0, 1),
        "grid": {"axes": axes},
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    episodes = {
        name: [draw_episodes(METHOD, k, rates=[rate] * 4, shares=shares, n=200, rng=rng) for k in (0, 1)]
        for name, (rate, shares) in KINDS.items()
    }
    write_grid_runs(make_config(), Layout(root), episodes)
    return root


@pytest.fixture
def layout(template: Path, tmp_path: Path) -> Layout:
    shutil.copytree(template, tmp_path / "run")
    return Layout(tmp_path / "run")


def test_one_axis_of_numbers_has_cells_by_rising_value_and_a_picture(layout: Layout) -> None:
    output, stream = layout.grid(TASK), io.StringIO()
    grid(make_config(), layout=layout, output=output, reporter=Reporter("plain", stream=stream))
    document = load_document(output, Grid)
    assert (document.axis, document.seeds) == (WEIGHT, [0, 1])
    assert [cell.name for cell in document.cells] == list(KINDS)  # by rising λ
    assert [cell.changes for cell in document.cells] == [{WEIGHT: value} for value in (0.0, 0.1, 0.5, 10.0)]
    found = [cell.methods[METHOD] for cell in document.cells]
    assert [one.folder for one in found[1:3]] == [f"grid/mi_weight=0.1/{METHOD}", METHOD]
    assert found[0].metrics["mode_entropy"].mean.value < 0.3
    assert "mi_weight=0.1, dppo-bmd: success 0.9" in stream.getvalue()
    for kind in ("png", "svg"):
        assert output.with_name(f"grid.{kind}").stat().st_size > 1000


def test_several_axes_have_cells_of_their_own(tmp_path: Path) -> None:
    config = make_config({WEIGHT: (0.0, 0.5), FED: (True, False)})
    rng = np.random.default_rng(0)
    names = [f"mi_weight={weight},balance_codes={fed}" for weight in ("0", "0.5") for fed in ("true", "false")]
    shares = [[2000, 1, 1, 1], *[[1, 1, 1, 1]] * 3]
    episodes = {
        name: [draw_episodes(METHOD, k, rates=[0.98] * 4, shares=share, n=200, rng=rng) for k in (0, 1)]
        for name, share in zip(names, shares, strict=True)
    }
    layout = Layout(tmp_path)
    write_grid_runs(config, layout, episodes)
    grid(config, layout=layout, output=layout.grid(TASK), reporter=QUIET)
    document = load_document(layout.grid(TASK), Grid)
    assert (document.axis, [cell.name for cell in document.cells]) == (None, names)
    assert layout.grid(TASK).with_name("grid.png").stat().st_size > 1000


def refuse(layout: Layout, match: str, config: RunConfig | None = None) -> None:
    output = layout.root / "out" / "grid.json"
    with pytest.raises(ArtifactError, match=match) as error:
        grid(config or make_config(), layout=layout, output=output, reporter=QUIET)
    assert "\n" not in str(error.value)
    assert not output.parent.exists()


def test_runs_that_do_not_belong_are_refused_by_name(layout: Layout) -> None:
    folder = layout.finetuned(TASK, f"grid/mi_weight=0.1/{METHOD}", 1)
    for name, message in (
        ("eval.json", f"{folder}/eval.json is missing"),
        ("run.json", f"{folder}/run.json is missing: make it with `snakemake"),
    ):
        contents = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(layout, message)
        (folder / name).write_bytes(contents)

    other = make_config(finetune={"iterations": 7})
    refuse(layout, r"seed0/eval.json: evaluated under other settings than the present ones; run `snakemake", other)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"config_hash": "0"}))
    refuse(layout, f"{folder}/run.json: trained under other settings")
    (folder / "run.json").write_text(json.dumps(record))


def test_an_evaluation_of_another_training_under_the_same_settings_is_refused(layout: Layout) -> None:
    folder = layout.finetuned(TASK, f"grid/mi_weight=0.1/{METHOD}", 1)
    (cell,) = (cell for cell in list_cells(make_config()) if cell.name == "mi_weight=0.1")
    (rows,) = load_episodes(folder / "episodes.parquet")
    block = json.loads((folder / "eval.json").read_text())["policies"][METHOD]
    part = replace(rows, behaviours={block["labelling"]: tuple(row["behaviour"] for row in block["codes"])})
    write_evaluation(cell.config, folder / "eval.json", part, finetuned=folder / "run.json")
    grid(make_config(), layout=layout, output=layout.root / "fine" / "grid.json", reporter=QUIET)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"wall_s": 77.0}))
    refuse(layout, f"eval.json: not of the policy in {folder}; delete it and run `snakemake")


def test_a_run_in_anothers_place_is_noticed(layout: Layout) -> None:
    place = f"grid/mi_weight=0/{METHOD}"
    one, other = layout.finetuned(TASK, place, 0), layout.finetuned(TASK, place, 1)
    shutil.rmtree(one)
    shutil.copytree(other, one)
    refuse(layout, "seed0/eval.json: holds dppo-bmd/seed1, not dppo-bmd/seed0")
    shutil.rmtree(one)
    shutil.copytree(layout.finetuned(TASK, METHOD, 0), one)
    refuse(layout, "evaluated under other settings")
