"""What a report is made of: the files of a task's results, read once and checked; and their lineage."""

import base64
import itertools
import json
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.config.schema import ModesConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import advise_again, hash_file, is_there, read_file
from bmd_pipeline.io.layout import EPISODES_FILE, METRICS_FILE, PATHS_FILE, RUN_FILE, VIDEO_TYPES, VIDEOS_FOLDER, Layout
from bmd_pipeline.io.logger import load_metrics
from bmd_pipeline.io.provenance import read_manifest, require_run
from bmd_pipeline.methods import is_finetuned, uses_modes
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.schemas import (
    AnyDocument,
    Comparison,
    Document,
    Evaluation,
    Grid,
    Validation,
    Verdict,
    load_document,
    require_tables,
)
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath, load_paths

# ---- Clips of a task, carried inside the page ----

MAX_VIDEO_BYTES = 3_500_000
"""Bytes of clips that a page carries; the rest is named and left beside it."""


@dataclass(frozen=True)
class Video:
    """One clip."""

    name: str  # of its file
    type: str  # media type
    url: str | None  # a `data:` address that holds it; None if the page would become too large


def find_videos(results: Path) -> list[Video]:
    """Clips in a task's `videos` folder by name; those that fit are read.

    Raises:
        ArtifactError: one is a link: a page that is handed on would carry whatever it leads to.
    """
    videos: list[Video] = []
    left = MAX_VIDEO_BYTES
    for path in sorted((results / VIDEOS_FOLDER).glob("*")):
        if path.suffix not in VIDEO_TYPES or not (path.is_file() or path.is_symlink()):
            continue
        if path.is_symlink():
            raise ArtifactError(
                f"{path} is a link, and the page would carry what it leads to: put the clip itself there"
            )
        kind, size, url = VIDEO_TYPES[path.suffix], path.stat().st_size, None
        if size <= left:
            left -= size
            url = f"data:{kind};base64,{base64.b64encode(read_file(path, size)).decode()}"
        videos.append(Video(path.name, kind, url))
    return videos


# ---- Learning curves, as `metrics.jsonl` holds them, thinned to what a picture can show ----

MAX_POINTS = 200
"""Points of a curve on the page; longer logs are thinned."""

METRICS = {
    "success": "rollout/success_rate",
    "entropy": "losses/entropy",
    "kl": "losses/kl_share",
    "mi_weight": "modes/mi_weight",
    "information": "modes/final_information",
    "selected": "select/success_rate",
}
"""What is drawn, and its name in the log."""

_UPDATES = ("entropy", "kl")
"""Metrics of policy updates; iterations without one, as while the critic warms up, are left out."""

_PEAKS = ("kl",)
"""Metrics thinned by their maximum: a mean would hide spikes."""

Value = float | None


@dataclass(frozen=True)
class Curves:
    """The curves of one run."""

    step: list[int]  # (num_points,) iteration, the last of those that a point stands for
    values: dict[str, list[Value]]  # (num_points,) by name in `METRICS`, if logged; None where nothing was measured
    stride: int  # iterations per point


def load_curves(path: Path) -> Curves:
    """Reads and thins the log of a fine-tuning run.

    Raises:
        ArtifactError: it is missing, empty or damaged.
    """
    return _thin_rows(load_metrics(path), [name for name in METRICS if name != "selected"])


def load_pretraining(path: Path) -> Curves | None:
    """Reads the selection success of a pre-training's log; None where nothing was played.

    Raises:
        ArtifactError: it is empty or damaged.
    """
    rows = [row for row in load_metrics(path) if METRICS["selected"] in row] if is_there(path) else []
    return _thin_rows(rows, ["selected"]) if rows else None


def _thin_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Curves:
    stride = math.ceil(len(rows) / MAX_POINTS)
    chunks = [rows[start : start + stride] for start in range(0, len(rows), stride)]
    return Curves(
        step=[chunk[-1]["step"] for chunk in chunks],
        values={
            name: [_thin(name, chunk) for chunk in chunks]
            for name in names
            if any(METRICS[name] in row for row in rows)
        },
        stride=stride,
    )


def _thin(name: str, rows: Sequence[Mapping[str, Any]]) -> Value:
    """A metric over some iterations, None where nothing was measured."""
    learned = [row for row in rows if name not in _UPDATES or row.get("losses/policy_steps") != 0]
    values = [row.get(METRICS[name]) for row in learned]
    finite = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not finite:
        return None
    value = max(finite) if name in _PEAKS else math.fsum(finite) / len(finite)
    return float(f"{value:.4g}")


# ---- What other stages found out about a task's results, where they ran ----


@dataclass(frozen=True)
class FoundDocuments:
    """Documents beside eval.json; None where their stage has not run."""

    comparison: Comparison | None
    verdict: Verdict | None
    grid: Grid | None
    validation: Validation | None


def load_documents(layout: Layout, evaluation: Evaluation) -> FoundDocuments:
    """Reads the documents that are there, and checks that they are about these results.

    Raises:
        ArtifactError: one is damaged, of another task, or was made from other files than those that are here.
    """
    task = evaluation.task
    results = layout.summary(task).parent
    evaluations = {name: file.sha256 for name, file in evaluation.provenance.inputs.items()}

    def hash_of(path: Path) -> str | None:
        return hash_file(path) if is_there(path) else None

    def load(path: Path, model: type[AnyDocument], find_hash: Callable[[str], str | None]) -> AnyDocument | None:
        if not is_there(path):
            return None
        document = load_document(path, model, task)
        for name, file in document.provenance.inputs.items():
            if find_hash(name) != file.sha256:
                why = f"was made from another {name} than the present one"
                raise ArtifactError(f"{path} {why}; delete it and {advise_again(path)}")
        return document

    return FoundDocuments(
        comparison=load(layout.comparison(task), Comparison, evaluations.get),
        verdict=load(layout.verdict(task), Verdict, evaluations.get),
        grid=load(layout.grid(task), Grid, lambda name: hash_of(results / name)),
        validation=load(layout.validation(task), Validation, lambda name: hash_of(results / name / RUN_FILE)),
    )


# ---- What a report is made of: the files of a task's results, read once and checked against each other ----

RunRecord = dict[str, Any]
"""What run.json or the manifest of demonstrations holds."""
Key = tuple[str, int]
"""A policy's name and seed."""


@dataclass(frozen=True)
class ReportSources:
    """Everything that a task's page shows, as it was read."""

    folder: str  # name of the task's folder in results/
    evaluation: Evaluation  # the task's eval.json
    parts: Mapping[Key, Evaluation]  # eval.json of each policy and seed
    episodes: Mapping[Key, Episodes]
    paths: Mapping[Key, list[PlanarPath]]  # of the first episodes, in their order
    book: PathBook  # names of axes, labelling and modes; its paths are those of `paths`
    demos: RunRecord | None  # manifest of the demonstrations; None where they were edited
    base: RunRecord  # run.json of pre-training
    discovered: Mapping[int, RunRecord]  # run.json of discovery by seed
    finetuned: Mapping[Key, RunRecord]  # run.json of fine-tuning
    curves: Mapping[Key, Curves]
    pretraining: Curves | None  # success of the base policy while it was pre-trained; None where nothing was played
    evidence: FoundDocuments
    videos: list[Video]
    code_names: Sequence[str | None] = ()  # what a person called the codes


def load_sources(
    task: str, layout: Layout, *, episodes: Path, paths: Path, decided: ModesConfig | None = None
) -> ReportSources:
    """Reads a task's results, with its tables of episodes and of planar paths, and checks that they are of one run.

    What was `decided` about modes names the codes, unless those of a seed are others.

    Raises:
        ArtifactError: a file is missing, damaged or cut short, or is not the one that the others were made from.
    """
    summary = layout.summary(task)
    evaluation = load_document(summary, Evaluation, task)
    known = {(policy, row.seed): row for policy, block in evaluation.policies.items() for row in block.seeds}
    parts = {key: _load_part(evaluation, layout, *key) for key in known}
    finetuned = {key: _load_finetuned(parts[key], layout, task, *key) for key in known if is_finetuned(key[0])}
    rows = {(part.policy, part.seed): part for part in load_episodes(episodes)}
    book = load_paths(paths)
    drawn: dict[Key, list[PlanarPath]] = {}
    for path in book.paths:
        drawn.setdefault((path.policy, path.seed), []).append(path)
    for (policy, seed), row in known.items():
        part = rows.get((policy, seed))
        if part is None or len(part) != row.episodes or float(part.success.mean()) != row.success_rate:
            raise ArtifactError(f"{episodes}: not the episodes of {summary} (seed {seed}); summarise again")
        # Paths are the first episodes: only so do they share the rows' lengths.
        found = [(path.code, path.success) for path in drawn.get((policy, seed), ())]
        n = len(found)
        if n == 0 or found != list(zip(part.code[:n].tolist(), part.success[:n].tolist(), strict=True)):
            raise ArtifactError(f"{paths}: not the paths of {summary} ({policy}, seed {seed}); summarise again")
    require_tables(evaluation, summary, EPISODES_FILE, PATHS_FILE)
    base = require_run(layout.policy(task), "pretrain", task)
    seeds = sorted({seed for policy, seed in known if uses_modes(policy)})
    discovered = {seed: require_run(layout.modes(task, seed), "discover", task, seed=seed) for seed in seeds}
    sizes = [record.get("findings", {}).get("cluster_sizes") for record in discovered.values()]
    fits = decided is not None and all(found == list(decided.demonstrations) for found in sizes)
    return ReportSources(
        folder=layout.folder(task),
        evaluation=evaluation,
        parts=parts,
        episodes={key: rows[key] for key in known},
        paths={key: drawn[key] for key in known},
        book=book,
        demos=_find_collection(base, layout, task),
        base=base,
        discovered=discovered,
        finetuned=finetuned,
        curves={key: load_curves(layout.finetuned(task, *key) / METRICS_FILE) for key in finetuned},
        pretraining=load_pretraining(layout.policy(task) / METRICS_FILE),
        evidence=load_documents(layout, evaluation),
        videos=find_videos(summary.parent),
        code_names=decided.names_by_code() if decided is not None and fits else (),
    )


def _find_collection(base: RunRecord, layout: Layout, task: str) -> RunRecord | None:
    """Manifest of the demonstrations that the policy was trained on; None if they were edited since, or if an imported
    policy lies beside others."""
    manifest = layout.demos_manifest(task)
    if not is_there(manifest):
        return None
    record = read_manifest(manifest)
    learnt_from = base.get("inputs", {}).get("demos", {}).get("sha256")
    return record if learnt_from == record["outputs"].get(layout.demos(task).name) else None


def _load_part(evaluation: Evaluation, layout: Layout, policy: str, seed: int) -> Evaluation:
    """One policy's and seed's eval.json, if it is the one that the task's eval.json was made from."""
    task = evaluation.task
    path, summary = layout.evaluation(task, policy, seed), layout.summary(task)
    which = f"--task {task} --method {policy} --seed {seed}"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: make it with `bmd-pipeline evaluate {which}`")
    part = load_document(path, Evaluation)
    block = part.policies.get(policy)
    if block is None or block.config_hash != evaluation.policies[policy].config_hash:
        raise ArtifactError(f"{path} was evaluated under other settings than {summary}; evaluate and summarise again")
    recorded = evaluation.provenance.inputs.get(f"{policy}/seed{seed}")
    if recorded is None or recorded.sha256 != hash_file(path):
        raise ArtifactError(
            f"{path} is not the file that {summary} was made from; run `bmd-pipeline summarise --task {task}`"
        )
    played = {"policy": layout.policy(task), "modes": layout.modes(task, seed)}
    for name, folder in played.items():
        evaluated, record = part.provenance.inputs.get(name), folder / RUN_FILE
        if evaluated is not None and is_there(record) and hash_file(record) != evaluated.sha256:
            raise ArtifactError(f"{record} is not the run that was evaluated; run `bmd-pipeline evaluate {which}`")
    return part


def _load_finetuned(part: Evaluation, layout: Layout, task: str, policy: str, seed: int) -> RunRecord:
    """The record of a fine-tuning, if it is the one that was evaluated and its log is whole."""
    folder = layout.finetuned(task, policy, seed)
    run, log = folder / RUN_FILE, folder / METRICS_FILE
    which = f"--task {task} --method {policy} --seed {seed}"
    record = require_run(folder, "finetune", task, method=policy, seed=seed, command=f"bmd-pipeline finetune {which}")
    evaluated = part.provenance.inputs.get("finetuned")
    if evaluated is None or evaluated.sha256 != hash_file(run):
        raise ArtifactError(f"{run} is not the run that was evaluated; run `bmd-pipeline evaluate {which}`")
    if not log.is_file():
        raise ArtifactError(f"{log} is missing: make it with `bmd-pipeline finetune {which}`")
    if record.get("outputs", {}).get(METRICS_FILE) != hash_file(log):
        raise ArtifactError(f"{log} is not as {RUN_FILE} recorded it (cut short or edited); fine-tune again: {which}")
    return record


# ---- Lineage of the files behind a page: every stage's command, settings, time and code ----


def list_steps(sources: ReportSources) -> list[RunRecord]:
    """The record of every stage behind the page, with the stage's name, in the order of the pipeline."""
    records: list[tuple[str, RunRecord]] = [("collect", sources.demos)] if sources.demos is not None else []
    records.append(("pretrain", sources.base))
    records += [("discover", record) for record in sources.discovered.values()]
    records += [("finetune", record) for record in sources.finetuned.values()]
    for (policy, _), part in sources.parts.items():
        records.append(("evaluate", _read_provenance(part) | {"config_hash": part.policies[policy].config_hash}))
    documents: dict[str, Document | None] = {
        "summarise": sources.evaluation,
        "validation": sources.evidence.validation,
        "compare": sources.evidence.comparison,
        "verdict": sources.evidence.verdict,
        "grid": sources.evidence.grid,
    }
    records += [(stage, _read_provenance(document)) for stage, document in documents.items() if document is not None]
    unknown = {"command": "", "wall_s": 0.0, "git_commit": None, "config_hash": ""}
    return [{**unknown, **record, "stage": stage} for stage, record in records]


def _read_provenance(document: Document) -> RunRecord:
    """A document's provenance in the terms of run.json."""
    return document.provenance.model_dump() | {"config_hash": document.config_hash}


def remake_command(evaluation: Evaluation, folder: str) -> str:
    """The command that makes the page with all that is behind it, under the preset and settings that were used.

    `folder` is the name of the task's folder in results/.
    """
    words: list[str] = []
    with suppress(ValueError):  # a command that is none
        words = shlex.split(evaluation.provenance.command)
    given = list(itertools.pairwise(words))
    presets = [f"preset={value}" for option, value in given if option == "--preset"]
    sets = [value for option, value in given if option == "--set"]
    config = presets[-1:] + ([f"set={json.dumps(sets, ensure_ascii=False)}"] if sets else [])
    target = f"results/{folder}/report.html"
    return shlex.join(["snakemake", "--cores", "2", target, *(["--config", *config] if config else [])])


def list_settings(sources: ReportSources) -> Iterator[tuple[str, Any]]:
    """The settings of every stage; those of fine-tuning once per method."""
    first = {"task": sources.base, "pretrain": sources.base}
    for record in sources.discovered.values():
        first.setdefault("discover", record)
    for (policy, _), record in sources.finetuned.items():
        first.setdefault(f"finetune {policy}", record)
    for name, record in first.items():
        yield name, record.get("config", {}).get(name.partition(" ")[0])
    yield "evaluate", sources.evaluation.provenance.config.get("evaluate")
