"""Stage `pool`: results/<Task>/pool.json, every policy's scores over base policies."""

from __future__ import annotations

import time
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import configure_base
from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, RunConfig, list_pairs
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import write_json
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.metrics.compare import pool_pair, pool_scores
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.hypotheses import smallest_p
from bmd_pipeline.metrics.schemas import SCHEMA_VERSION, Evaluation, PolicyBlock, Pool, PooledScore, load_document
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.eval_document import EPISODES_FILE, hash_policy_settings
from bmd_pipeline.stages.evidence import make_rng, trace


def pool(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter | None = None) -> None:
    """Pools the results of every base policy.

    Args:
        config: the run; `methods`, `seeds` and `pool.bases` say what there must be.
        layout: where the results are.
        output: the pool.json to write.
        reporter: where each policy's scores are told, if anywhere.

    Raises:
        ArtifactError: an eval.json is missing or damaged, lacks a policy or seed, or was made under other settings.
    """
    started = time.time()
    runs = {base: configure_base(config, base) for base in config.pool.bases}
    paths = {base: layout.summary(run.task.name) for base, run in runs.items()}
    documents = [_load(run, paths[base]) for base, run in runs.items()]
    taught = all(TAUGHT in document.policies for document in documents)
    policies = (PRETRAINED, *((TAUGHT,) if taught else ()), *config.methods)
    blocks = {policy: [document.policies[policy] for document in documents] for policy in policies}
    rows = [_load_rows(path, document) for path, document in zip(paths.values(), documents, strict=True)]
    episodes = {policy: [row[policy] for row in rows] for policy in policies}
    _require_same_modes(blocks[PRETRAINED], list(paths.values()))
    first = blocks[PRETRAINED][0]
    confidence, rng = config.evaluate.confidence, make_rng(config, "pool")
    pairs = [(policy, PRETRAINED) for policy in policies if policy != PRETRAINED] + list_pairs(config.methods)
    pooled = {policy: pool_scores(rows, confidence) for policy, rows in blocks.items()}
    document = Pool(
        schema_version=SCHEMA_VERSION,
        task=config.task.name,
        config_hash=stage_hash(config, "pool"),
        confidence=confidence,
        labelling=first.labelling,
        total_modes=len(first.per_mode),
        tau=first.solved.tau,
        bases=list(config.pool.bases),
        seeds=list(config.seeds),
        policies=pooled,
        pairs=[pool_pair(blocks, episodes, one, other, confidence, rng) for one, other in pairs],
        smallest_p=smallest_p(len(runs)),
        provenance=trace(config, "pool", {run.task.name: paths[base] for base, run in runs.items()}, started),
    )
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        for policy, scores in pooled.items():
            reporter.log(f"{policy}: {_tell(scores, document.total_modes)}")


def _load(config: RunConfig, path: Path) -> Evaluation:
    """The results on one base policy, if they are those that the settings ask for."""
    again = f"snakemake --cores 2 {path}"
    document = load_document(path, Evaluation)
    if document.task != config.task.name:
        raise ArtifactError(f"{path}: evaluation of task {document.task}, not of {config.task.name}")
    taught = (TAUGHT,) if TAUGHT in document.policies else ()
    for policy in (PRETRAINED, *taught, *config.methods):
        block = document.policies.get(policy)
        if block is None:
            raise ArtifactError(f"{path}: holds no {policy}; run `{again}`")
        if block.config_hash != hash_policy_settings(config, policy):
            raise ArtifactError(f"{path}: {policy} was evaluated under other settings; run `{again}`")
        found = [row.seed for row in block.seeds]
        if sorted(found) != sorted(config.seeds):
            raise ArtifactError(f"{path}: {policy} has seeds {found}, not {list(config.seeds)}; run `{again}`")
    return document


def _load_rows(path: Path, document: Evaluation) -> dict[str, list[Episodes]]:
    """The episodes beside a base policy's results, by policy, seeds in rising order."""
    table = path.with_name(EPISODES_FILE)
    rows: dict[str, list[Episodes]] = {}
    for part in sorted(load_episodes(table), key=lambda part: part.seed):
        rows.setdefault(part.policy, []).append(part)
    told = {
        policy: sorted((row.seed, row.episodes) for row in block.seeds) for policy, block in document.policies.items()
    }
    if told != {policy: [(part.seed, len(part)) for part in parts] for policy, parts in rows.items()}:
        raise ArtifactError(f"{table}: not the episodes of {path}; run `snakemake --cores 2 {path}`")
    return rows


def _require_same_modes(blocks: list[PolicyBlock], paths: list[Path]) -> None:
    modes = [(block.labelling, [row.mode for row in block.per_mode]) for block in blocks]
    for found, path in zip(modes, paths, strict=True):
        if found != modes[0]:
            raise ArtifactError(f"{path}: its modes are not those of {paths[0]}; evaluate again")


def _tell(scores: dict[str, PooledScore], total_modes: int) -> str:
    """A policy's scores for people: success and modes, each base policy in brackets."""
    success, present, solved, entropy, obeyed, worst = (
        scores[name] for name in ("success_rate", "present", "solved", "mode_entropy", "obeyed", "obeyed_worst")
    )
    values = ", ".join(f"{value:.3f}" for value in success.bases)
    by_base = ", ".join(f"{value:.3g}" for value in solved.bases)
    return (
        f"success {success.mean.value:.3f} [{success.mean.low:.3f}, {success.mean.high:.3f}] ({values}), "
        f"present {present.mean.value:.3g}, solved {solved.mean.value:.3g} ({by_base}) of {total_modes} modes, "
        f"entropy {entropy.mean.value:.2f} nats, obeyed {obeyed.mean.value:.3f} (worst {worst.mean.value:.3f})"
    )
