"""Commands that weigh a task's evaluations against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.job import Job, stage_command
from bmd_pipeline.config.overrides import base_name, list_cells, list_points
from bmd_pipeline.config.schema import PRETRAINED, TAUGHT, judged_methods

Evaluations = Annotated[
    list[Path] | None,
    typer.Argument(
        help="The eval.json files. Default: all that are needed, from results/TASK/METHOD/seedN/.",
        show_default=False,
    ),
]


def need_evaluations(job: Job, given: Sequence[Path] | None, policies: Sequence[str]) -> list[Path]:
    """The eval.json files of some policies at every configured seed, or those that the user named.

    Raises:
        ArtifactError: one is not there.
    """
    expected = {
        job.layout.evaluation(job.task, policy, seed): f"--method {policy} --seed {seed}"
        for policy in policies
        for seed in job.config.seeds
    }
    taught = [job.layout.evaluation(job.task, TAUGHT, seed) for seed in job.config.seeds]
    if PRETRAINED in policies and all(path.is_file() for path in taught):  # shown beside it where it was evaluated
        expected |= dict.fromkeys(taught, f"--method {TAUGHT}")
    paths = list(given or expected)
    for path in paths:
        which = expected.get(path, "--method METHOD --seed SEED")
        o.need_path(path, path, f"bmd-pipeline evaluate --task {job.task} {which}")
    return paths


@stage_command("evaluate")
def compare(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Compares all methods and seeds, with intervals, tests and effect sizes.

    Writes results/TASK/compare.json, and compare.parquet with the scores of every seed.
    """
    paths = need_evaluations(job, evaluations, (PRETRAINED, *job.config.methods))
    file = o.new_file(output, job.layout.comparison(job.task))
    job.start(file)
    from bmd_pipeline.stages.compare import compare as run

    run(
        job.config,
        evaluations=paths,
        output=file,
        reporter=job.reporter,
    )


@stage_command("evaluate")
def verdict(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Decides the hypotheses on success and modes, method by method.

    Writes results/TASK/verdict.json.
    """
    paths = need_evaluations(job, evaluations, judged_methods(job.config.methods))
    file = o.new_file(output, job.layout.verdict(job.task))
    job.start(file)
    from bmd_pipeline.stages.compare import verdict as run

    run(
        job.config,
        evaluations=paths,
        output=file,
        reporter=job.reporter,
    )


@stage_command("evaluate")
def sweep(job: Job, output: o.Output = None) -> None:
    """Gathers the runs of the λ sweep.

    Snakemake makes them: snakemake --cores 8 results/TASK/lambda/sweep.json. Writes that file and a picture.
    """
    target = job.layout.sweep(job.task)
    for point in list_points(job.config):
        for seed in job.config.sweep.seeds:
            evaluated = job.layout.sweep_run(job.task, point.name, seed) / "eval.json"
            o.need_path(evaluated, evaluated, f"snakemake --cores 2 {target}")
    file = o.new_file(output, target)
    job.start(file)
    from bmd_pipeline.stages.grid import sweep as run

    run(job.config, layout=job.layout, output=file, reporter=job.reporter)


@stage_command("evaluate")
def validation(job: Job, policy: o.Policy = None, output: o.Output = None) -> None:
    """Puts the discovered modes to the test: are they distinct behaviours?

    Plays the frozen policy with the modes of every seed. Writes results/TASK/modes/validation.json.
    """
    base = o.need_folder(policy, job.layout.policy(job.task), f"bmd-pipeline pretrain --task {job.task}")
    modes = {
        seed: o.need_folder(
            None, job.layout.modes(job.task, seed), f"bmd-pipeline discover --task {job.task} --seed {seed}"
        )
        for seed in job.config.seeds
    }
    file = o.new_file(output, job.layout.validation(job.task))
    job.start(file)
    from bmd_pipeline.stages.validation import validation as run

    run(
        job.config,
        policy=base,
        modes=modes,
        output=file,
        num_workers=job.num_workers,
        reporter=job.reporter,
    )


@stage_command("evaluate")
def grid(job: Job, output: o.Output = None) -> None:
    """Gathers the runs of a grid: every method with every K and λ of the settings.

    Snakemake makes them: snakemake --cores 8 results/TASK/grid.json. Writes that file.
    """
    target = job.layout.grid(job.task)
    for cell in list_cells(job.config):
        for seed in job.config.seeds:
            evaluated = job.layout.grid_run(job.task, cell.folder, seed) / "eval.json"
            o.need_path(evaluated, evaluated, f"snakemake --cores 2 {target}")
    file = o.new_file(output, target)
    job.start(file)
    from bmd_pipeline.stages.grid import grid as run

    run(job.config, layout=job.layout, output=file, reporter=job.reporter)


@stage_command("evaluate")
def pool(job: Job, output: o.Output = None) -> None:
    """Pools base policies: every policy's scores over TASK-base0, TASK-base1, …, each made from demonstrations on.

    Snakemake makes them: snakemake --cores 8 results/TASK/pool.json. Writes that file.
    """
    target = job.layout.pool(job.task)
    for base in job.config.pool.bases:
        evaluated = job.layout.summary(base_name(job.task, base))
        o.need_path(evaluated, evaluated, f"snakemake --cores 2 {target}")
    file = o.new_file(output, target)
    job.start(file)
    from bmd_pipeline.stages.grid import pool as run

    run(job.config, layout=job.layout, output=file, reporter=job.reporter)
