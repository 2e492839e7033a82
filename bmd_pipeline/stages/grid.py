"""Stage `grid`: results/<Task>/grid.json, the scores of every method with every K and λ."""

from __future__ import annotations

import time
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import GridCell, configure_cell, list_cells
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.files import write_json
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.bootstrap import JointSample
from bmd_pipeline.metrics.compare import score_seeds
from bmd_pipeline.metrics.schemas import SCHEMA_VERSION, Cell, Grid
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluated import load_evaluated
from bmd_pipeline.stages.evidence import resample, trace


def grid(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter | None = None) -> None:
    """Gathers the runs of a grid.

    Args:
        config: the run; `methods`, `seeds` and `grid` say which cells there must be.
        layout: where the runs are.
        output: the grid.json to write.
        reporter: where each cell's scores are told, if anywhere.

    Raises:
        ArtifactError: an evaluation is missing or damaged, or was made under other settings.
    """
    started = time.time()
    task = config.task.name
    cells = {cell.key: cell for cell in list_cells(config)}
    paths = {
        (key, seed): layout.grid_run(task, cell.folder, seed) / "eval.json"
        for key, cell in cells.items()
        for seed in config.seeds
    }
    again = f"snakemake --cores 2 {layout.grid(task)}"
    rows = {
        key: [
            load_evaluated(configure_cell(config, cell), paths[key, seed], wanted=(cell.method, seed), again=again)
            for seed in config.seeds
        ]
        for key, cell in cells.items()
    }
    sample = resample(config, rows)
    described = [_describe(config, sample, cell) for cell in cells.values()]
    document = Grid(
        schema_version=SCHEMA_VERSION,
        task=task,
        config_hash=stage_hash(config, "grid"),
        confidence=config.evaluate.confidence,
        labelling=sample.labelling,
        total_modes=len(sample.modes),
        tau=sample.tau,
        seeds=sample.seeds,
        episodes_per_seed=sample.num_episodes,
        cells=described,
        provenance=trace(
            config, "grid", {str(path.relative_to(output.parent)): path for path in paths.values()}, started
        ),
    )
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        for key, cell in zip(cells, described, strict=True):
            reporter.log(f"{key}: {_tell(cell)}")


def _describe(config: RunConfig, sample: JointSample, cell: GridCell) -> Cell:
    return Cell(
        method=cell.method,
        num_modes=cell.num_modes,
        controller=cell.point.controller if cell.point else None,
        weight=cell.point.weight if cell.point else None,
        folder=cell.folder,
        metrics=score_seeds(sample.scores[cell.key], sample.resampled[cell.key], config.evaluate.confidence),
    )


def _tell(cell: Cell) -> str:
    """A cell's scores for people: success and modes side by side."""
    success, present, solved, entropy, obeyed, worst = (
        cell.metrics[name].mean
        for name in ("success_rate", "present", "solved", "mode_entropy", "obeyed", "obeyed_worst")
    )
    return (
        f"success {success.value:.3f} [{success.low:.3f}, {success.high:.3f}], present {present.value:.3g}, "
        f"solved {solved.value:.3g}, entropy {entropy.value:.2f} nats, "
        f"obeyed {obeyed.value:.3f} (worst {worst.value:.3f})"
    )
