"""What `evaluate` and `summarise` share: the frame of eval.json and the names of the files beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from bmd_pipeline.config.hashing import Stage, config_hash, hash_values, stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig, is_finetuned, uses_modes
from bmd_pipeline.io.provenance import describe_run
from bmd_pipeline.metrics.schemas import SCHEMA_VERSION, Evaluation, PolicyBlock, Provenance
from bmd_pipeline.seeds import derive_seed

EPISODES_FILE = "episodes.parquet"
PATHS_FILE = "trajectories.parquet"
PATHS_PICTURE = "trajectories"
SUCCESS_PICTURE = "success_modes"


def hash_policy_settings(config: RunConfig, method: str) -> str:
    """Hash of the settings that a policy's evaluation depends on, through all stages before it.

    Other methods' settings and the list of seeds are left out: adding a seed makes no evaluation stale.
    """
    stages: list[Stage] = ["collect", "pretrain"]
    if uses_modes(method):
        stages.append("discover")
    if is_finetuned(method):
        stages.append("finetune")
    stages.append("evaluate")
    return hash_values({stage: stage_hash(config, stage, method) for stage in stages})


def make_bootstrap_generator(config: RunConfig) -> np.random.Generator:
    """Draws of the bootstrap; the same for every policy, so that a file never depends on its neighbours."""
    return np.random.default_rng(derive_seed(config.seed, "evaluate", "bootstrap"))


def make_document(
    config: RunConfig,
    policies: dict[str, PolicyBlock],
    inputs: dict[str, Path],
    seed: int,
    started: float,
    device: torch.device | None = None,
) -> Evaluation:
    """eval.json around the blocks of its policies."""
    run = describe_run(
        stage="evaluate",
        task=config.task.name,
        config=stage_slice(config, "evaluate"),
        config_hash=stage_hash(config, "evaluate"),
        seed=seed,
        inputs=inputs,
        started=started,
        device=device,
    )
    return Evaluation(
        schema_version=SCHEMA_VERSION,
        task=config.task.name,
        config_hash=config_hash(config),
        confidence=config.evaluate.confidence,
        policies=policies,
        provenance=Provenance(**{name: run[name] for name in Provenance.model_fields}),
    )


def describe_block(block: PolicyBlock) -> str:
    """One line of numbers for people; it lists codes that are without a behaviour."""
    success, solved = block.success_rate, block.solved
    return (
        f"success {success.mean:.3f} [{success.low:.3f}, {success.high:.3f}], "
        f"mode-weighted {block.mode_weighted_success.mean:.3f}, "
        f"present {block.present.mean:.3g}, solved {solved.mean:.3g} of {solved.total} modes, "
        f"entropy {block.mode_entropy.mean:.2f} nats, "
        f"obeyed {block.obeyed.mean:.3f} (worst {block.obeyed_worst.mean:.3f}){_describe_codes(block)} "
        f"({success.n} episodes)"
    )


def _describe_codes(block: PolicyBlock) -> str:
    if not block.codes:
        return ""
    rates = [row.success_rate for row in block.codes]
    lost = ", ".join(f"{row.code} of seed {row.seed}" for row in block.codes if row.behaviour is None)
    return f", success per code {min(rates):.3f} to {max(rates):.3f}" + (f"; no behaviour: code {lost}" if lost else "")
