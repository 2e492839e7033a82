"""What a report is made of: the files of a task's results, read once and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.config.schema import is_finetuned, uses_modes
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, read_json
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.schemas import Evaluation, PolicyBlock, SeedRow, load_document
from bmd_pipeline.reporting.page.curves import Curves, load_curves, load_pretraining
from bmd_pipeline.reporting.page.evidence import Evidence, load_evidence
from bmd_pipeline.reporting.page.videos import Video, find_videos
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath, load_paths

Record = dict[str, Any]
Key = tuple[str, int]
"""A policy's name and seed."""


@dataclass(frozen=True)
class ReportSources:
    """Everything that a task's page shows, as it was read.

    Attributes:
        evaluation: the task's eval.json.
        parts: evaluation of each policy and seed.
        episodes: episode rows of each policy and seed.
        paths: planar paths of each policy and seed, the first of its episodes, in their order.
        book: names of axes, labelling and modes (its paths are those of `paths`).
        demos: manifest of the demonstrations, None where they were brought along or edited.
        base: run.json of pre-training.
        discovered: run.json of discovery by seed.
        tuned: run.json of fine-tuning by policy and seed.
        curves: learning curves by policy and seed.
        pretraining: success of the base policy while it was pre-trained, None where nothing was played.
        evidence: what other stages found, where they ran.
        videos: clips, where there are any.
    """

    evaluation: Evaluation
    parts: Mapping[Key, Evaluation]
    episodes: Mapping[Key, Episodes]
    paths: Mapping[Key, list[PlanarPath]]
    book: PathBook
    demos: Record | None
    base: Record
    discovered: Mapping[int, Record]
    tuned: Mapping[Key, Record]
    curves: Mapping[Key, Curves]
    pretraining: Curves | None
    evidence: Evidence
    videos: list[Video]


def load_sources(task: str, layout: Layout, *, episodes: Path, paths: Path) -> ReportSources:
    """Reads a task's results and checks that they are of one run.

    Args:
        task: the task.
        layout: where everything is.
        episodes: the task's table of episodes.
        paths: the task's table of planar paths.

    Raises:
        ArtifactError: a file is missing, damaged or cut short, or is not the one that the others were made from.
    """
    summary = layout.summary(task)
    evaluation = load_document(summary, Evaluation)
    if evaluation.task != task:
        raise ArtifactError(f"{summary}: evaluation of task {evaluation.task}, not of {task}")
    keys = [(policy, row.seed) for policy, block in evaluation.policies.items() for row in block.seeds]
    parts = {key: _load_part(evaluation, layout, *key) for key in keys}
    tuned = {key: _load_tuned(parts[key], layout, task, *key) for key in keys if is_finetuned(key[0])}
    rows = {(part.policy, part.seed): part for part in load_episodes(episodes)}
    book = load_paths(paths)
    drawn = _group_paths(book)
    for key in keys:
        _check_rows(rows.get(key), _row_of(evaluation.policies[key[0]], key[1]), episodes, summary)
        _check_paths(drawn.get(key, []), rows[key], paths, summary)
    base = require_run(layout.policy(task), "pretrain", task)
    seeds = sorted({seed for policy, seed in keys if uses_modes(policy)})
    return ReportSources(
        evaluation=evaluation,
        parts=parts,
        episodes={key: rows[key] for key in keys},
        paths={key: drawn[key] for key in keys},
        book=book,
        demos=_find_collection(base, layout, task),
        base=base,
        discovered={seed: require_run(layout.modes(task, seed), "discover", task) for seed in seeds},
        tuned=tuned,
        curves={key: load_curves(layout.tuned(task, *key) / METRICS_FILE) for key in tuned},
        pretraining=load_pretraining(layout.policy(task) / METRICS_FILE),
        evidence=load_evidence(layout, evaluation),
        videos=find_videos(summary.parent),
    )


def _find_collection(base: Record, layout: Layout, task: str) -> Record | None:
    """The manifest of what the policy learnt from. An earlier collection's may lie there too, when the demonstrations
    or the policy were brought along."""
    manifest = layout.demos_manifest(task)
    if not manifest.is_file():
        return None
    record = read_json(manifest, "manifest")
    learnt_from = base.get("inputs", {}).get("demos", {}).get("sha256")
    return record if learnt_from == record.get("outputs", {}).get(layout.demos(task).name) else None


def _load_part(evaluation: Evaluation, layout: Layout, policy: str, seed: int) -> Evaluation:
    """One policy's and seed's eval.json, if it is the one that the task's eval.json was made from."""
    task = evaluation.task
    path, summary = layout.evaluation(task, policy, seed), layout.summary(task)
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing: make it with `bmd-pipeline evaluate --task {task} --method {policy} --seed {seed}`"
        )
    part = load_document(path, Evaluation)
    block = part.policies.get(policy)
    if block is None or block.config_hash != evaluation.policies[policy].config_hash:
        raise ArtifactError(f"{path} was evaluated under other settings than {summary}; evaluate and summarise again")
    recorded = evaluation.provenance.inputs.get(f"{policy}/seed{seed}")
    if recorded is None or recorded.sha256 != hash_file(path):
        raise ArtifactError(
            f"{path} is not the file that {summary} was made from; run `bmd-pipeline summarise --task {task}`"
        )
    return part


def _load_tuned(part: Evaluation, layout: Layout, task: str, policy: str, seed: int) -> Record:
    """The record of a fine-tuning, if it is the one that was evaluated and its log is whole."""
    folder = layout.tuned(task, policy, seed)
    which = f"--task {task} --method {policy} --seed {seed}"
    record = require_run(folder, "finetune", task, command=f"bmd-pipeline finetune {which}")
    judged = part.provenance.inputs.get("tuned")
    if judged is None or judged.sha256 != hash_file(folder / RUN_FILE):
        raise ArtifactError(f"{folder / RUN_FILE} is not the run that was judged; run `bmd-pipeline evaluate {which}`")
    log = folder / METRICS_FILE
    if not log.is_file():
        raise ArtifactError(f"{log} is missing: make it with `bmd-pipeline finetune {which}`")
    if record.get("outputs", {}).get(METRICS_FILE) != hash_file(log):
        raise ArtifactError(f"{log} is not as {RUN_FILE} recorded it (cut short or edited); fine-tune again: {which}")
    return record


def _row_of(block: PolicyBlock, seed: int) -> SeedRow:
    return next(row for row in block.seeds if row.seed == seed)


def _group_paths(book: PathBook) -> dict[Key, list[PlanarPath]]:
    groups: dict[Key, list[PlanarPath]] = {}
    for path in book.paths:
        groups.setdefault((path.policy, path.seed), []).append(path)
    return groups


def _check_rows(rows: Episodes | None, expected: SeedRow, path: Path, summary: Path) -> None:
    if rows is None or len(rows) != expected.episodes or float(rows.success.mean()) != expected.success_rate:
        raise ArtifactError(f"{path}: not the episodes of {summary} (seed {expected.seed}); summarise again")


def _check_paths(paths: list[PlanarPath], rows: Episodes, path: Path, summary: Path) -> None:
    """Paths are the first episodes: only so do they share the rows' lengths."""
    found = [(one.code, one.success) for one in paths]
    n = len(found)
    if n == 0 or found != list(zip(rows.code[:n].tolist(), rows.success[:n].tolist(), strict=True)):
        raise ArtifactError(f"{path}: not the paths of {summary} ({rows.policy}, seed {rows.seed}); summarise again")
