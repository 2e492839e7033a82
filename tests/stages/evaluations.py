"""Folders of evaluated policies, as `evaluate` leaves them, without playing anything."""

from __future__ import annotations

import time
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import list_cells
from bmd_pipeline.config.schema import RunConfig, grid_methods
from bmd_pipeline.io.files import write_bytes, write_json
from bmd_pipeline.io.layout import EPISODES_FILE, Layout
from bmd_pipeline.io.provenance import describe_run, write_run
from bmd_pipeline.metrics.episodes import Episodes, encode_episodes
from bmd_pipeline.stages.evaluations import make_block, make_document


def write_evaluation(config: RunConfig, path: Path, episodes: Episodes) -> Path:
    """Writes eval.json and the episodes beside it."""
    block = make_block(config, [episodes])
    document = make_document(config, {episodes.policy: block}, {}, episodes.seed, time.time())
    write_bytes(path.with_name(EPISODES_FILE), encode_episodes([episodes]))
    write_json(path, document.model_dump(mode="json"))
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
                    started=time.time(),
                ),
                outputs=(),
            )
