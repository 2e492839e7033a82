"""Stage `sweep`: results/<Task>/lambda/sweep.json, success and modes against λ, and how calm training was."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.overrides import SweepPoint, configure_swept, list_points
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, write_json
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.logger import load_metrics
from bmd_pipeline.io.provenance import require_run
from bmd_pipeline.metrics.bootstrap import JointSample
from bmd_pipeline.metrics.compare import score_seeds
from bmd_pipeline.metrics.plateau import (
    INDICATORS,
    Floors,
    Range,
    WeightScore,
    describe_sweep,
    find_plateau,
    measure_stability,
    set_floors,
)
from bmd_pipeline.metrics.schemas import SCHEMA_VERSION, Indicator, Plateau, Point, Sweep
from bmd_pipeline.reporting.figures import draw_sweep
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.evaluated import Evaluated, load_evaluated
from bmd_pipeline.stages.evidence import resample, trace

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
    runs = {point.name: [_load(config, point, seed, layout) for seed in config.sweep.seeds] for point in points}
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
        text=describe_sweep(described, plateau, floors, total_modes=len(sample.modes)),
        provenance=trace(config, "sweep", inputs, started),
    )
    output.unlink(missing_ok=True)  # an old sweep.json must not vouch for a new picture
    draw_sweep(document, output.with_name(PICTURE))
    write_json(output, document.model_dump(mode="json"))
    if reporter is not None:
        reporter.log(document.text)


@dataclass(frozen=True)
class _Run:
    """One point and seed."""

    folder: Path
    evaluated: Evaluated
    stability: dict[str, float]


def _load(config: RunConfig, point: SweepPoint, seed: int, layout: Layout) -> _Run:
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


def _weigh(sample: JointSample, point: SweepPoint) -> WeightScore:
    scores = sample.scores[point.name]
    return WeightScore(point.weight or 0.0, float(scores["success_rate"].mean()), float(scores["solved"].mean()))


def _describe_point(
    sample: JointSample, point: SweepPoint, runs: list[_Run], floors: Floors, config: RunConfig
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
