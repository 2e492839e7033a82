"""What stages share that write and read evaluations: the head of a document, and checks of what they are given."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmd_pipeline.config.hashing import Stage, config_hash, hash_values, stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import advise_again
from bmd_pipeline.io.layout import EPISODES_FILE
from bmd_pipeline.io.provenance import RunStart
from bmd_pipeline.methods import TAUGHT, is_finetuned, uses_modes
from bmd_pipeline.metrics.bootstrap import PairedBootstrap, make_paired_bootstrap
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.schemas import (
    SCHEMA_VERSION,
    Evaluation,
    PolicyBlock,
    Provenance,
    load_document,
    require_tables,
)
from bmd_pipeline.metrics.summary import summarise_policy
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.stages.checkpoints import describe_stage

# ---- What result documents begin with, and the files beside an eval.json ----

PATHS_PICTURE = "trajectories"
SUCCESS_PICTURE = "success_modes"


def hash_policy_settings(config: RunConfig, method: str) -> str:
    """Hash of the settings that a policy's evaluation depends on, through all stages before it.

    Other methods' settings and the list of seeds are left out: adding a seed makes no evaluation stale.
    """
    stages: list[Stage] = ["collect", "pretrain", "evaluate"]
    stages += ["discover"] if uses_modes(method) else []
    stages += ["finetune"] if is_finetuned(method) else []
    return hash_values({stage: stage_hash(config, stage, method) for stage in stages})  # their order does not matter


def make_rng(config: RunConfig, purpose: str) -> np.random.Generator:
    """Draws for one purpose of a stage that compares or tests."""
    return np.random.default_rng(derive_seed(config.seed, "evaluate", "evidence", purpose))


def make_head(
    config: RunConfig,
    stage: Stage,
    inputs: Mapping[str, Path],
    start: RunStart,
    *,
    seed: int | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """The fields that every document begins with; for the arguments see `describe_stage`."""
    run = describe_stage(config, stage, inputs=inputs, start=start, seed=seed, device=device)
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "task": config.task.name,
        "config_hash": run["config_hash"],
        "confidence": config.evaluate.confidence,
        "provenance": Provenance(**{name: run[name] for name in Provenance.model_fields}),
    }


def make_evidence_head(
    config: RunConfig, stage: Stage, sample: PairedBootstrap, inputs: Mapping[str, Path], start: RunStart
) -> dict[str, Any]:
    """The same of a document about several policies, with what they were evaluated on."""
    return make_head(config, stage, inputs, start) | {
        "alpha": config.evaluate.alpha,
        "labelling": sample.labelling,
        "modes": sample.modes,
        "tau": sample.tau,
        "seeds": sample.seeds,
        "episodes_per_seed": sample.num_episodes,
    }


def make_block(config: RunConfig, parts: Sequence[Episodes]) -> PolicyBlock:
    """One policy's part of eval.json, from its episodes of each seed."""
    return summarise_policy(
        parts,
        config_hash=hash_policy_settings(config, parts[0].policy),
        tau=config.evaluate.tau,
        confidence=config.evaluate.confidence,
        rng=np.random.default_rng(derive_seed(config.seed, "evaluate", "bootstrap")),  # the same for every policy
    )


def make_document(
    config: RunConfig,
    policies: dict[str, PolicyBlock],
    inputs: Mapping[str, Path],
    seed: int,
    start: RunStart,
    tables: Mapping[str, bytes],
    device: torch.device | None = None,
    *,
    stage: str = "evaluate",
) -> Evaluation:
    """eval.json around the blocks of its policies, with the content of the tables beside it by name.

    `stage` is that which writes it: evaluate, or summarise.
    """
    head = make_head(config, "evaluate", inputs, start, seed=seed, device=device)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()}
    own = {"stage": stage, "config_hash": config_hash(config), "policies": policies, "tables": hashes}
    return Evaluation(**head | own)


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


# ---- Reading the evaluation of one policy and seed, and whether it is the one that is wanted ----


@dataclass(frozen=True)
class Evaluated:
    """One policy and seed as it was evaluated."""

    path: Path  # its eval.json
    episodes: Episodes  # the rows beside it, with the behaviours of the codes
    document: Evaluation

    @property
    def name(self) -> str:
        """Policy and seed."""
        return f"{self.episodes.policy}/seed{self.episodes.seed}"

    def find_input(self, name: str) -> str | None:
        """Hash of the record of what was evaluated: policy, modes or finetuned; None if there was none."""
        file = self.document.provenance.inputs.get(name)
        return None if file is None else file.sha256


def require_settings(found: object, expected: str, path: Path, what: str, again: str) -> None:
    """Checks that what is at `path` was made under the present settings, by their hashes.

    Raises `ArtifactError` otherwise; `what` says how it was made ("trained"), and `again` is the command that makes it.
    """
    if found != expected:
        raise ArtifactError(f"{path}: {what} under other settings than the present ones; run `{again}`")


def load_evaluated(
    config: RunConfig, path: Path, *, wanted: tuple[str, int] | None = None, again: str | None = None
) -> Evaluated:
    """Reads an eval.json of one policy and seed, and checks that it belongs to the run; in a grid, to that of its cell.

    It must hold the `wanted` policy and seed; None takes any. `again` is the command that makes it, for messages.

    Raises:
        ArtifactError: a file is missing or damaged, or is of another task, policy or seed, or other settings.
    """
    task = config.task.name
    document = load_document(path, Evaluation, task)
    policies = document.policies
    if len(policies) != 1:
        raise ArtifactError(f"{path}: must hold one policy, holds {', '.join(policies)}")
    ((policy, block),) = policies.items()
    seed = block.seeds[0].seed
    if wanted is not None and wanted != (policy, seed):
        raise ArtifactError(f"{path}: holds {policy}/seed{seed}, not {wanted[0]}/seed{wanted[1]}")
    again = again or f"bmd-pipeline evaluate --task {task} --method {policy} --seed {seed}"
    require_settings(block.config_hash, hash_policy_settings(config, policy), path, "evaluated", again)
    parts = load_episodes(path.with_name(EPISODES_FILE))
    found = [(part.policy, part.seed, len(part)) for part in parts]
    labellings = {name: labelling.modes for name, labelling in parts[0].labellings.items()} if parts else {}
    blocks = {block.labelling: block, **block.labellings}
    modes = {name: tuple(row.mode for row in labelling.per_mode) for name, labelling in blocks.items()}
    if found != [(policy, seed, block.seeds[0].episodes)] or labellings != modes:
        raise ArtifactError(f"{path.with_name(EPISODES_FILE)}: not the episodes of {path}; run `{again}`")
    behaviours = {name: tuple(row.behaviour for row in labelling.codes) for name, labelling in blocks.items()}
    if parts[0].num_codes > 1 and any(len(row) != parts[0].num_codes for row in behaviours.values()):
        raise ArtifactError(f"{path}: must hold a row for each of {parts[0].num_codes} codes; run `{again}`")
    require_tables(document, path, EPISODES_FILE)
    row = block.seeds[0]
    known = replace(parts[0], behaviours=behaviours, dropped=row.dropped, obs_reach=tuple(row.obs_reach))
    return Evaluated(path, known, document)


def require_one_origin(parts: Sequence[Evaluated], *, share_modes: bool = True) -> None:
    """Checks that evaluations that are set side by side go back to one base policy, and to one set of modes a seed.

    Each cell of a grid may have modes of its own. Raises `ArtifactError` otherwise.
    """
    first: dict[tuple[str, int], Evaluated] = {}
    for part in parts:
        for name in ("policy", "modes") if share_modes else ("policy",):
            if (found := part.find_input(name)) is None:
                continue
            other = first.setdefault((name, part.episodes.seed if name == "modes" else 0), part)
            if other.find_input(name) != found:
                why = f"{name} is another than that of {other.path}"
                raise ArtifactError(f"{part.path}: its {why}; delete both and {advise_again(part.path)}")


# ---- Evaluations of several policies together: compare, verdict and grid ----


def load_evaluations(
    config: RunConfig, policies: Sequence[str], evaluations: Sequence[Path]
) -> dict[str, list[Evaluated]]:
    """Reads the evaluations of some policies at every configured seed: by policy in this order, one per seed.

    `evaluations` are their eval.json files, in any order. Those of the taught policy may be lacking altogether.

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
    require_one_origin(list(found.values()))
    present = {policy for policy, _ in found}
    policies = [policy for policy in policies if policy in present or policy != TAUGHT]
    for policy in policies:
        for seed in config.seeds:
            if (policy, seed) not in found:
                command = f"bmd-pipeline evaluate --task {config.task.name} --method {policy} --seed {seed}"
                raise ArtifactError(f"the evaluation of {policy}/seed{seed} is missing: make it with `{command}`")
    return {policy: [found[policy, seed] for seed in config.seeds] for policy in policies}


def resample(config: RunConfig, rows: Mapping[str, Sequence[Evaluated]]) -> PairedBootstrap:
    """Scores and resamples evaluations together; the draws depend on the run's root seed alone.

    Raises:
        ArtifactError: evaluations label modes differently, or differ in their number of episodes.
    """
    first, *others = (part for row in rows.values() for part in row)
    modes = {name: of.modes for name, of in first.episodes.labellings.items()}
    for part in others:
        if len(part.episodes) != len(first.episodes):
            counts = f"{len(part.episodes)} episodes, {len(first.episodes)} in {first.path}"
            raise ArtifactError(f"{part.path}: {counts}; delete it and {advise_again(part.path)}")
        if {name: of.modes for name, of in part.episodes.labellings.items()} != modes:
            why = f"its modes are not those of {first.path}"
            raise ArtifactError(f"{part.path}: {why}; delete it and {advise_again(part.path)}")
    return make_paired_bootstrap(
        {name: [part.episodes for part in row] for name, row in rows.items()},
        tau=config.evaluate.tau,
        rng=make_rng(config, "bootstrap"),
    )
