"""Stages `grid`, `sweep` and `pool`: scores over K and λ, over λ with how calm training was, and over base policies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import (
    GridCell,
    SweepPoint,
    configure_base,
    configure_cell,
    configure_swept,
    list_cells,
    list_points,
)
from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, RunConfig, list_pairs
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, write_json
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.logger import load_metrics
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.metrics.bootstrap import PairedBootstrap
from bmd_pipeline.metrics.compare import pool_pair, pool_scores, score_seeds
from bmd_pipeline.metrics.episodes import Episodes, load_episodes
from bmd_pipeline.metrics.hypotheses import smallest_p
from bmd_pipeline.metrics.plateau import (
    INDICATORS,
    Floors,
    Range,
    WeightScore,
    find_plateau,
    measure_stability,
    set_floors,
)
from bmd_pipeline.metrics.schemas import (
    SCHEMA_VERSION,
    Cell,
    Evaluation,
    Grid,
    Indicator,
    Plateau,
    Point,
    PolicyBlock,
    Pool,
    PooledScore,
    Sweep,
    load_document,
)
from bmd_pipeline.reporting.figures import draw_sweep
from bmd_pipeline.reporting.narrative import describe_sweep
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluations import (
    EPISODES_FILE,
    Evaluated,
    hash_policy_settings,
    load_evaluated,
    make_rng,
    resample,
    trace,
)

# ---- Stage `grid`: results/<Task>/grid.json, the scores of every method with every K and λ ----


def grid(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter | None = None) -> None:
    """Gathers the runs of a grid.

    Args:
        config: the run; `methods`, `seeds` and `grid` say which cells there must be.
        layout: where the runs are.
        output: the grid.json to write.
        reporter: where each cell's scores are told, if anywhere.

    Raises:
        ArtifactError: an evaluation is missing or damaged, or was made under other settings.
    """
    started = time.time()
    task = config.task.name
    cells = {cell.key: cell for cell in list_cells(config)}
    paths = {
        (key, seed): layout.grid_run(task, cell.folder, seed) / "eval.json"
        for key, cell in cells.items()
        for seed in config.seeds
    }
    again = f"snakemake --cores 2 {layout.grid(task)}"
    rows = {
        key: [
            load_evaluated(configure_cell(config, cell), paths[key, seed], wanted=(cell.method, seed), again=again)
            for seed in config.seeds
        ]
        for key, cell in cells.items()
    }
    sample = resample(config, rows)
    described = [_describe(config, sample, cell) for cell in cells.values()]
    document = Grid(
        schema_version=SCHEMA_VERSION,
        task=task,
        config_hash=stage_hash(config, "grid"),
        confidence=config.evaluate.confidence,
        labelling=sample.labelling,
        total_modes=len(sample.modes),
        tau=sample.tau,
        seeds=sample.seeds,
        episodes_per_seed=sample.num_episodes,
        cells=described,
        provenance=trace(
            config, "grid", {str(path.relative_to(output.parent)): path for path in paths.values()}, started
        ),
    )
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        for key, cell in zip(cells, described, strict=True):
            reporter.log(f"{key}: {_tell(cell)}")


def _describe(config: RunConfig, sample: PairedBootstrap, cell: GridCell) -> Cell:
    return Cell(
        method=cell.method,
        num_modes=cell.num_modes,
        controller=cell.point.controller if cell.point else None,
        weight=cell.point.weight if cell.point else None,
        folder=cell.folder,
        metrics=score_seeds(sample.scores[cell.key], sample.resampled[cell.key], config.evaluate.confidence),
    )


def _tell(cell: Cell) -> str:
    """A cell's scores for people: success and modes side by side."""
    success, present, solved, entropy, obeyed, worst = (
        cell.metrics[name].mean
        for name in ("success_rate", "present", "solved", "mode_entropy", "obeyed", "obeyed_worst")
    )
    return (
        f"success {success.value:.3f} [{success.low:.3f}, {success.high:.3f}], present {present.value:.3g}, "
        f"solved {solved.value:.3g}, entropy {entropy.value:.2f} nats, "
        f"obeyed {obeyed.value:.3f} (worst {worst.value:.3f})"
    )


# ---- Stage `sweep`: results/<Task>/lambda/sweep.json, success and modes against λ, and how calm training was ----

PICTURE = "sweep"


def sweep(config: RunConfig, *, layout: Layout, output: Path, reporter: Reporter | None = None) -> None:
    """Gathers the runs of a λ sweep, which differ in the regulariser alone.

    Args:
        config: the run; `sweep` says which points and seeds there must be.
        layout: where the runs are.
        output: the sweep.json to write, last of all; a picture goes beside it.
        reporter: where the finding is told, if anywhere.

    Raises:
        ArtifactError: a run is missing or damaged, or was trained or evaluated under other settings.
    """
    started = time.time()
    points = list_points(config)
    runs = {point.name: [_load_run(config, point, seed, layout) for seed in config.sweep.seeds] for point in points}
    sample = resample(config, {name: [run.evaluated for run in row] for name, row in runs.items()})
    scores = [_weigh(sample, point) for point in points if point.weight is not None]
    floors = set_floors(scores, config.sweep.success_tolerance, config.sweep.solved_tolerance * len(sample.modes))
    described = [_describe_point(sample, point, runs[point.name], floors, config) for point in points]
    plateau = _name_plateau(described, find_plateau(scores, floors))
    inputs = {
        f"{name}/seed{run.evaluated.episodes.seed}/{file}": run.folder / file
        for name, row in runs.items()
        for run in row
        for file in ("eval.json", RUN_FILE)
    }
    document = Sweep(
        schema_version=SCHEMA_VERSION,
        task=config.task.name,
        config_hash=stage_hash(config, "sweep"),
        method=config.sweep.method,
        confidence=config.evaluate.confidence,
        labelling=sample.labelling,
        total_modes=len(sample.modes),
        tau=sample.tau,
        seeds=sample.seeds,
        episodes_per_seed=sample.num_episodes,
        points=described,
        success_floor=floors.success,
        solved_floor=floors.solved,
        plateau=plateau,
        provenance=trace(config, "sweep", inputs, started),
    )
    output.unlink(missing_ok=True)  # an old sweep.json must not vouch for a new picture
    draw_sweep(document, output.with_name(PICTURE))
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        reporter.log(describe_sweep(document))


@dataclass(frozen=True)
class _Run:
    """One point and seed."""

    folder: Path
    evaluated: Evaluated
    stability: dict[str, float]


def _load_run(config: RunConfig, point: SweepPoint, seed: int, layout: Layout) -> _Run:
    """Reads one run and checks that it was trained and evaluated as the settings say."""
    task, method = config.task.name, config.sweep.method
    here = configure_swept(config, point)
    folder = layout.sweep_run(task, point.name, seed)
    again = f"snakemake --cores 2 {layout.sweep(task)}"
    evaluated = load_evaluated(here, folder / "eval.json", wanted=(method, seed), again=again)
    record = require_run(folder, "finetune", task, command=again)
    if record.get("config_hash") != stage_hash(here, "finetune", method):
        raise ArtifactError(f"{folder / RUN_FILE}: trained under other settings than the present ones; run `{again}`")
    log = folder / METRICS_FILE
    lines = load_metrics(log)
    if hash_file(log) != record.get("outputs", {}).get(METRICS_FILE):
        raise ArtifactError(f"{log} is damaged or edited: not what {RUN_FILE} records; run `{again}`")
    return _Run(folder, evaluated, measure_stability(lines, config.finetune.ppo.target_kl))


def _weigh(sample: PairedBootstrap, point: SweepPoint) -> WeightScore:
    scores = sample.scores[point.name]
    return WeightScore(point.weight or 0.0, float(scores["success_rate"].mean()), float(scores["solved"].mean()))


def _describe_point(
    sample: PairedBootstrap, point: SweepPoint, runs: list[_Run], floors: Floors, config: RunConfig
) -> Point:
    reached = _weigh(sample, point)
    return Point(
        name=point.name,
        controller=point.controller,
        weight=point.weight,
        metrics=score_seeds(sample.scores[point.name], sample.resampled[point.name], config.evaluate.confidence),
        stability={
            name: Indicator(
                mean=sum(run.stability[name] for run in runs) / len(runs), seeds=[run.stability[name] for run in runs]
            )
            for name in INDICATORS
        },
        holds=floors.hold(reached.success, reached.solved),
    )


def _name_plateau(points: list[Point], found: Range | None) -> Plateau | None:
    """The plateau as the document has it; constants come first among the points, by rising weight."""
    if found is None:
        return None
    constants = [point for point in points if point.weight is not None]
    inside = constants[found.first : found.last + 1]
    weights = [point.weight or 0.0 for point in inside]
    lowest_positive = next((i for i, point in enumerate(constants) if point.weight), len(constants))
    return Plateau(
        names=[point.name for point in inside],
        low=weights[0],
        high=weights[-1],
        decades=found.decades,
        open_below=found.first <= lowest_positive,
        open_above=found.last == len(constants) - 1,
    )


# ---- Stage `pool`: results/<Task>/pool.json, every policy's scores over base policies ----


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
    documents = [_load_base(run, paths[base]) for base, run in runs.items()]
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
            reporter.log(f"{policy}: {_describe_scores(scores, document.total_modes)}")


def _load_base(config: RunConfig, path: Path) -> Evaluation:
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


def _describe_scores(scores: dict[str, PooledScore], total_modes: int) -> str:
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
