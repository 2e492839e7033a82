"""Folders of evaluated policies, as `evaluate` leaves them, without playing anything."""

from __future__ import annotations

from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import list_cells
from bmd_pipeline.config.schema import RunConfig, grid_methods
from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.io.layout import EPISODES_FILE, Layout
from bmd_pipeline.io.provenance import RunStart, describe_run, write_run
from bmd_pipeline.metrics.episodes import Episodes, encode_episodes
from bmd_pipeline.metrics.schemas import write_document
from bmd_pipeline.stages.evaluations import make_block, make_document


def write_evaluation(config: RunConfig, path: Path, episodes: Episodes, **inputs: Path) -> Path:
    """Writes eval.json and the episodes beside it; `inputs` are the records of what it says was evaluated."""
    blocks = {episodes.policy: make_block(config, [episodes])}
    start, tables = RunStart(print, *inputs.values()), {EPISODES_FILE: encode_episodes([episodes])}
    write_bytes(path.with_name(EPISODES_FILE), tables[EPISODES_FILE])
    write_document(path, make_document(config, blocks, inputs, episodes.seed, start, tables))
    return path


def write_grid_runs(config: RunConfig, layout: Layout, episodes: dict[str, list[Episodes]]) -> None:
    """Writes every cell and seed of a grid of one method: eval.json, and the record of its training.

    Args:
        config: the run.
        layout: where.
        episodes: by cell, one part per seed.
    """
    task = config.task.name
    (method,) = grid_methods(config)
    for cell in list_cells(config):
        for part in episodes[cell.name]:
            folder = layout.finetuned(task, cell.folder(method), part.seed)
            write_evaluation(cell.config, folder / "eval.json", part)
            write_run(
                folder,
                describe_run(
                    stage="finetune",
                    task=task,
                    config={},
                    config_hash=stage_hash(cell.config, "finetune", method),
                    seed=part.seed,
                    inputs={},
                    start=RunStart(print),
                    extra={"method": method},
                ),
                outputs=(),
            )
