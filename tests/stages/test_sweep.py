"""The stage `sweep`, on made-up runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.schemas import Sweep, load_document
from bmd_pipeline.reporting.narrative import describe_sweep
from bmd_pipeline.stages.grid import sweep
from tests.metrics.drawn import draw_episodes
from tests.stages.evaluations import write_swept_runs

TASK = "GaussianMixture"
KINDS = {
    "weight-0": (0.98, [2000, 1, 1, 1]),
    "weight-0.1": (0.98, [1, 1, 1, 1]),
    "weight-1": (0.98, [1, 1, 1, 1]),
    "weight-10": (0.6, [1, 1, 1, 1]),
    "occupancy": (0.98, [1, 1, 1, 1]),
}


def make_config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "compare": {"resamples": 200},
        "sweep": {
            "weights": (0.0, 0.1, 1.0, 10.0),
            "controllers": ("occupancy",),
            "seeds": (0, 1),
            "success_tolerance": 0.05,
        },
    }
    return RunConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    rng = np.random.default_rng(0)
    episodes = {
        name: [draw_episodes("dppo-bmd", k, rates=[rate] * 4, shares=shares, n=200, rng=rng) for k in (0, 1)]
        for name, (rate, shares) in KINDS.items()
    }
    write_swept_runs(make_config(), Layout(root), episodes)
    return root


@pytest.fixture
def layout(template: Path, tmp_path: Path) -> Layout:
    shutil.copytree(template, tmp_path / "run")
    return Layout(tmp_path / "run")


def test_it_finds_the_plateau_and_draws_it(layout: Layout) -> None:
    output = layout.sweep(TASK)
    sweep(make_config(), layout=layout, output=output)
    document = load_document(output, Sweep)
    assert [point.name for point in document.points] == list(KINDS)
    assert [point.weight for point in document.points] == [0.0, 0.1, 1.0, 10.0, None]
    assert [point.holds for point in document.points] == [False, True, True, False, True]
    plateau = document.plateau
    assert plateau is not None
    assert (plateau.low, plateau.high, plateau.decades) == (0.1, 1.0, pytest.approx(1.0))
    assert (plateau.open_below, plateau.open_above) == (True, False)
    assert document.points[-1].stability["final_weight"].mean == pytest.approx(0.4)
    assert document.points[0].stability["early_stops"].seeds == [1.0, 1.0]
    assert "λ from 0.1 to 1 holds both" in describe_sweep(document)
    assert "occupancy holds both too, with λ = 0.4 in the end" in describe_sweep(document)
    assert document.seeds == [0, 1]
    for kind in ("png", "svg"):
        assert output.with_name(f"sweep.{kind}").stat().st_size > 1000


def test_a_plateau_that_reaches_the_end_is_open(layout: Layout) -> None:
    sweep(
        make_config(sweep={"weights": (0.0, 0.1, 1.0), "controllers": (), "seeds": (0, 1), "success_tolerance": 0.05}),
        layout=layout,
        output=layout.sweep(TASK),
    )
    document = load_document(layout.sweep(TASK), Sweep)
    assert document.plateau is not None
    assert document.plateau.open_above
    assert "highest λ that was tried" in describe_sweep(document)


def refuse(layout: Layout, match: str, config: RunConfig | None = None) -> None:
    output = layout.root / "out" / "sweep.json"
    with pytest.raises(ArtifactError, match=match) as error:
        sweep(config or make_config(), layout=layout, output=output)
    assert "\n" not in str(error.value)
    assert not output.parent.exists()


def test_runs_that_do_not_belong_are_refused_by_name(layout: Layout) -> None:
    folder = layout.sweep_run(TASK, "weight-1", 1)
    for name, message in (
        ("eval.json", f"{folder}/eval.json is missing"),
        ("run.json", f"{folder}/run.json is missing: make it with `snakemake"),
        ("metrics.jsonl", f"{folder}/metrics.jsonl can't be read"),
    ):
        contents = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(layout, message)
        (folder / name).write_bytes(contents)

    other = make_config(finetune={"iterations": 7})
    refuse(
        layout, r"weight-0/seed0/eval.json: evaluated under other settings than the present ones; run `snakemake", other
    )
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"config_hash": "0"}))
    refuse(layout, f"{folder}/run.json: trained under other settings")
    (folder / "run.json").write_text(json.dumps(record))

    log = folder / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]))
    refuse(layout, f"{log} is damaged or edited")
    log.write_text("".join(lines)[:-5])
    refuse(layout, f"{log}, line 10: damaged")


def test_a_run_of_another_seed_in_its_place_is_noticed(layout: Layout) -> None:
    one, other = layout.sweep_run(TASK, "occupancy", 0), layout.sweep_run(TASK, "occupancy", 1)
    shutil.rmtree(one)
    shutil.copytree(other, one)
    refuse(layout, "occupancy/seed0/eval.json: holds dppo-bmd/seed1, not dppo-bmd/seed0")
