"""Folders of evaluated policies, as `evaluate` leaves them, without playing anything."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import configure_swept, list_points
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.files import write_bytes, write_json, write_text
from bmd_pipeline.io.layout import METRICS_FILE, Layout
from bmd_pipeline.io.provenance import write_run
from bmd_pipeline.metrics.episodes import Episodes, encode_episodes
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.stages.evaluations import EPISODES_FILE, hash_policy_settings, make_bootstrap_generator, make_document


def write_evaluation(config: RunConfig, path: Path, episodes: Episodes) -> Path:
    """Writes eval.json and the episodes beside it."""
    block = summarise_policy(
        [episodes],
        config_hash=hash_policy_settings(config, episodes.policy),
        tau=config.evaluate.tau,
        confidence=config.evaluate.confidence,
        rng=make_bootstrap_generator(config),
    )
    document = make_document(config, {episodes.policy: block}, {}, episodes.seed, time.time())
    write_bytes(path.with_name(EPISODES_FILE), encode_episodes([episodes]))
    write_json(path, document.model_dump(mode="json"))
    return path


def write_swept_runs(config: RunConfig, layout: Layout, episodes: dict[str, list[Episodes]]) -> None:
    """Writes every point and seed of a sweep: eval.json, and the log and record of its training.

    Args:
        config: the run.
        layout: where.
        episodes: by point, one part per seed.
    """
    task, method = config.task.name, config.sweep.method
    for point in list_points(config):
        here = configure_swept(config, point)
        for part in episodes[point.name]:
            folder = layout.sweep_run(task, point.name, part.seed)
            line = {"losses/approx_kl": 0.2, "modes/mi_weight": point.weight or 0.4, "rollout/episode_return": 1.0}
            lines = [json.dumps({"step": step, **line}) for step in range(1, 11)]
            write_text(folder / METRICS_FILE, "\n".join(lines) + "\n")
            write_run(
                folder,
                stage="finetune",
                task=task,
                config={},
                config_hash=stage_hash(here, "finetune", method),
                seed=part.seed,
                inputs={},
                outputs=(METRICS_FILE,),
                started=time.time(),
            )
            write_evaluation(here, folder / "eval.json", part)
