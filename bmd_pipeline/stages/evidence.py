"""What the stages share that weigh evaluations against each other: compare, verdict and sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bmd_pipeline.config.hashing import Stage, stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.provenance import describe_run
from bmd_pipeline.metrics.bootstrap import JointSample, make_joint_sample
from bmd_pipeline.metrics.schemas import Provenance
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.stages.evaluated import Evaluated, load_evaluated


def load_evaluations(
    config: RunConfig, policies: Sequence[str], evaluations: Sequence[Path], *, optional: Sequence[str] = ()
) -> dict[str, list[Evaluated]]:
    """Reads the evaluations of some policies at every configured seed.

    Args:
        config: the run.
        policies: which policies must be there, in this order.
        evaluations: their eval.json files, in any order.
        optional: which of the policies may be lacking altogether.

    Returns:
        by policy, one evaluation per seed.

    Raises:
        ArtifactError: a file is missing, damaged, not of this run or not asked for, or one is lacking.
    """
    found: dict[tuple[str, int], Evaluated] = {}
    for path in evaluations:
        part = load_evaluated(config, path)
        key = (part.episodes.policy, part.episodes.seed)
        if key in found:
            raise ArtifactError(f"{found[key].path} and {path} both hold {part.name}")
        if key[0] not in policies or key[1] not in config.seeds:
            raise ArtifactError(f"{path}: {part.name} is not among the methods and seeds of the settings")
        found[key] = part
    present = {policy for policy, _ in found}
    policies = [policy for policy in policies if policy in present or policy not in optional]
    for policy in policies:
        for seed in config.seeds:
            if (policy, seed) not in found:
                command = f"bmd-pipeline evaluate --task {config.task.name} --method {policy} --seed {seed}"
                raise ArtifactError(f"the evaluation of {policy}/seed{seed} is missing: make it with `{command}`")
    return {policy: [found[policy, seed] for seed in config.seeds] for policy in policies}


def resample(config: RunConfig, rows: Mapping[str, Sequence[Evaluated]]) -> JointSample:
    """Scores and resamples evaluations together; the draws depend on the run's root seed alone.

    Raises:
        ArtifactError: evaluations label modes differently, or differ in their number of episodes.
    """
    parts = [part for row in rows.values() for part in row]
    first = parts[0]
    for part in parts[1:]:
        if len(part.episodes) != len(first.episodes):
            counts = f"{len(part.episodes)} episodes, {len(first.episodes)} in {first.path}"
            raise ArtifactError(f"{part.path}: {counts}; evaluate again")
        if _modes(part) != _modes(first):
            raise ArtifactError(f"{part.path}: its modes are not those of {first.path}; evaluate again")
    return make_joint_sample(
        {name: [part.episodes for part in row] for name, row in rows.items()},
        tau=config.evaluate.tau,
        num_resamples=config.compare.resamples,
        rng=make_rng(config, "bootstrap"),
    )


def make_rng(config: RunConfig, purpose: str) -> np.random.Generator:
    """Draws for one purpose."""
    return np.random.default_rng(derive_seed(config.seed, "evaluate", "evidence", purpose))


def trace(config: RunConfig, stage: Stage, inputs: Mapping[str, Path], started: float) -> Provenance:
    """Where a document's numbers come from.

    Args:
        config: the run.
        stage: the stage that writes it.
        inputs: files it read, by name.
        started: `time.time()` at its start.
    """
    run = describe_run(
        stage=stage,
        task=config.task.name,
        config=stage_slice(config, stage),
        config_hash=stage_hash(config, stage),
        seed=config.seed,
        inputs=inputs,
        started=started,
    )
    return Provenance(**{name: run[name] for name in Provenance.model_fields})


def _modes(part: Evaluated) -> dict[str, tuple[str, ...]]:
    return {name: labelling.modes for name, labelling in part.episodes.labellings.items()}
