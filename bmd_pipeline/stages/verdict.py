"""Stage `verdict`: results/<Task>/verdict.json, the claim as hypotheses that were stated beforehand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bmd_pipeline.config.hashing import hash_values, stage_hash
from bmd_pipeline.config.schema import RunConfig, judged_methods, list_pairs
from bmd_pipeline.io.files import write_json
from bmd_pipeline.metrics.hypotheses import Judge, describe_scope
from bmd_pipeline.metrics.schemas import SCHEMA_VERSION, Verdict
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evidence import load_evaluations, make_rng, resample, trace


def verdict(config: RunConfig, *, evaluations: Sequence[Path], output: Path, reporter: Reporter | None = None) -> None:
    """Decides the hypotheses on every pair of a -bmd method and its plain counterpart.

    Args:
        config: the run; `verdict` holds the thresholds.
        evaluations: eval.json of each `judged_methods` at every configured seed.
        output: the verdict.json to write.
        reporter: where it is told, if anywhere.

    Raises:
        ConfigError: no pair is configured.
        ArtifactError: an evaluation is missing, damaged, or of another task or other settings.
    """
    started = time.time()
    rows = load_evaluations(config, judged_methods(config.methods), evaluations)
    sample = resample(config, rows)
    settings = config.verdict
    judge = Judge(
        sample,
        list_pairs(config.methods),
        settings,
        min_seeds=config.compare.min_seeds,
        rng=make_rng(config, "tests"),
    )
    document = Verdict(
        schema_version=SCHEMA_VERSION,
        task=config.task.name,
        config_hash=stage_hash(config, "verdict"),
        thresholds_hash=hash_values({**settings.model_dump(mode="json"), "tau": config.evaluate.tau}),
        alpha=settings.alpha,
        power=settings.power,
        tau=sample.tau,
        success_margin=settings.success_margin,
        family=judge.family,
        labelling=sample.labelling,
        total_modes=len(sample.modes),
        seeds=sample.seeds,
        episodes_per_seed=sample.num_episodes,
        scope=describe_scope(
            judge.unit, len(sample.seeds), needed=judge.min_seeds, family=judge.family, alpha=settings.alpha
        ),
        pairs=judge.judge(),
        provenance=trace(config, "verdict", {part.name: part.path for row in rows.values() for part in row}, started),
    )
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        reporter.log(document.scope)
        for pair in document.pairs:
            for found in pair.hypotheses:
                reporter.log(f"{found.hypothesis} {found.verdict}: {found.text}")
