"""One command per stage. Each checks its inputs, then imports and calls the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.evidence import Evaluations, need_evaluations
from bmd_pipeline.cli.job import Job, stage_command
from bmd_pipeline.config.schema import EXPERT, PRETRAINED, check_method, compared_policies, is_finetuned, uses_modes
from bmd_pipeline.errors import ArtifactError, ConfigError


@stage_command("collect", resumable=True)
def collect(job: Job, output: o.Output = None) -> None:
    """Collects demonstrations with the task's scripted expert.

    Writes data/TASK/demos.zarr, and demos.manifest.json beside it.
    """
    store = o.new_folder(output, job.layout.demos(job.task))
    manifest = store.with_name(job.layout.demos_manifest(job.task).name)
    job.start(store)
    from bmd_pipeline.stages.collect import collect as run

    run(job.config, output=store, manifest=manifest, num_workers=job.num_workers, reporter=job.reporter, stop=job.stop)


@stage_command("pretrain", resumable=True)
def pretrain(
    job: Job,
    demos: o.Demos = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Take over the policy in this folder: nothing is trained.", show_default=False),
    ] = None,
    output: o.Output = None,
) -> None:
    """Trains the diffusion policy on the demonstrations until its success is flat.

    Writes results/TASK/policy/.
    """
    brought = policy or _as_path(job.config.pretrain.policy_folder)
    if demos and brought:
        raise ConfigError(f"--demos is to train on, but {brought} is a policy to take over: choose one")
    store = None if brought else _need_demos(job, demos)
    folder = o.new_folder(output, job.layout.policy(job.task))
    job.start(folder)
    from bmd_pipeline.stages.pretrain import pretrain as run

    run(
        job.config,
        demos=store,
        policy=brought,
        output=folder,
        num_workers=job.num_workers,
        reporter=job.reporter,
        stop=job.stop,
    )


@stage_command("discover", resumable=True)
def discover(
    job: Job, seed: o.Seed = 0, policy: o.Policy = None, demos: o.Demos = None, output: o.Output = None
) -> None:
    """Finds the behaviours in the demonstrations, and teaches the policy a code for each.

    In the published form (discover.form) it finds those of the frozen policy. Writes results/TASK/modes/seedN/.
    """
    base = _need_policy(job, policy)
    store = _need_demos(job, demos) if job.config.discover.form == "coded" else None
    folder = o.new_folder(output, job.layout.modes(job.task, seed))
    job.start(folder)
    from bmd_pipeline.stages.discover import discover as run

    run(
        job.config,
        policy=base,
        demos=store,
        output=folder,
        seed=seed,
        num_workers=job.num_workers,
        reporter=job.reporter,
        stop=job.stop,
    )


@stage_command("finetune", resumable=True)
def finetune(
    job: Job,
    method: o.Method,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    output: o.Output = None,
) -> None:
    """Fine-tunes the policy with reinforcement learning.

    Methods ending in -bmd keep the discovered modes. Writes results/TASK/METHOD/seedN/.
    """
    check_method(method)
    base = _need_policy(job, policy)
    found = _need_modes(job, modes, method, seed)
    folder = o.new_folder(output, job.layout.tuned(job.task, method, seed))
    job.start(folder, method)
    from bmd_pipeline.stages.finetune import finetune as run

    run(
        job.config,
        policy=base,
        modes=found,
        output=folder,
        method=method,
        seed=seed,
        num_workers=job.num_workers,
        reporter=job.reporter,
        stop=job.stop,
    )


@stage_command("evaluate", resumable=True)
def evaluate(
    job: Job,
    method: Annotated[
        str, typer.Option("--method", "-m", help="What to judge: a fine-tuning method, pretrained, or taught.")
    ] = PRETRAINED,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    tuned: o.Tuned = None,
    output: o.Output = None,
) -> None:
    """Judges one policy on episodes that no training saw.

    Writes eval.json, the episodes and a picture to results/TASK/METHOD/seedN/.
    """
    check_method(method, evaluating=True)
    base = _need_policy(job, policy)
    found = _need_modes(job, modes, method, seed)
    better = _need_tuned(job, tuned, method, seed)
    file = o.new_file(output, job.layout.evaluation(job.task, method, seed))
    job.start(file, method)
    from bmd_pipeline.stages.evaluate import evaluate as run

    run(
        job.config,
        policy=base,
        modes=found,
        tuned=better,
        output=file,
        method=method,
        seed=seed,
        num_workers=job.num_workers,
        reporter=job.reporter,
        stop=job.stop,
    )


@stage_command("evaluate")
def curve(
    job: Job,
    method: o.Method,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    tuned: o.Tuned = None,
    output: o.Output = None,
) -> None:
    """Judges the snapshots of a fine-tuning run: success and modes over training.

    Needs finetune.snapshot_interval. Writes curve.json to results/TASK/METHOD/seedN/.
    """
    check_method(method)
    base = _need_policy(job, policy)
    found = _need_modes(job, modes, method, seed)
    better = _need_tuned(job, tuned, method, seed)
    file = o.new_file(output, job.layout.curve(job.task, method, seed))
    job.start(file, method)
    from bmd_pipeline.stages.curve import curve as run

    run(
        job.config,
        policy=base,
        modes=found,
        tuned=better or job.layout.tuned(job.task, method, seed),
        output=file,
        method=method,
        seed=seed,
        num_workers=job.num_workers,
        reporter=job.reporter,
    )


@stage_command("evaluate")
def summarise(job: Job, evaluations: Evaluations = None, output: o.Output = None) -> None:
    """Puts a task's evaluations side by side.

    Writes results/TASK/eval.json, all episodes and the pictures of before and after.
    """
    paths = need_evaluations(job, evaluations, compared_policies(job.config.methods, job.config.discover.form))
    file = o.new_file(output, job.layout.summary(job.task))
    job.start(file)
    from bmd_pipeline.stages.evaluate import summarise as run

    run(
        job.config,
        evaluations=paths,
        output=file,
        reporter=job.reporter,
    )


@stage_command("evaluate")
def film(
    job: Job,
    method: Annotated[
        str, typer.Option("--method", "-m", help="Who plays: expert, pretrained, taught, or a fine-tuning method.")
    ] = EXPERT,
    seed: o.Seed = 0,
    policy: o.Policy = None,
    modes: o.Modes = None,
    tuned: o.Tuned = None,
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=100, help="Clips of each mode, or code.")] = 1,
    size: Annotated[int, typer.Option("--size", min=64, max=1024, help="Pixels of a clip's side.")] = 320,
    output: o.Output = None,
) -> None:
    """Films the modes: clips of episodes that the expert or a policy plays.

    Needs something to render with; Mesa's software renderers will do. Writes results/TASK/videos/.
    """
    base = found = better = None
    if method == EXPERT:
        for name, given in (("policy", policy), ("modes", modes), ("tuned", tuned)):
            if given:
                raise ConfigError(f"--{name} goes with the --method that it belongs to, got --method {EXPERT}")
    else:
        check_method(method, evaluating=True)
        base = _need_policy(job, policy)
        found = _need_modes(job, modes, method, seed)
        better = _need_tuned(job, tuned, method, seed)
    who = method if method == EXPERT else f"{method}-seed{seed}"
    file = o.new_file(output, job.layout.report(job.task).parent / "videos" / f"{who}.json")
    if file.suffix != ".json":
        raise ConfigError(f"--output names the document, which ends in .json; clips go beside it; got {file}")
    job.start(file, method)
    from bmd_pipeline.stages.film import film as run

    run(
        job.config,
        output=file,
        method=method,
        seed=seed,
        policy=base,
        modes=found,
        tuned=better,
        episodes=episodes,
        size=size,
        reporter=job.reporter,
    )


def _need_demos(job: Job, given: Path | None) -> Path:
    store = given or _as_path(job.config.collect.store)
    if store and not store.is_dir():
        raise ArtifactError(f"{store} is no folder: {'--demos' if given else 'collect.store'} must name a zarr store")
    return store or o.need_path(None, job.layout.demos(job.task), f"bmd-pipeline collect --task {job.task}")


def _as_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _need_policy(job: Job, given: Path | None) -> Path:
    return o.need_folder(given, job.layout.policy(job.task), f"bmd-pipeline pretrain --task {job.task}")


def _need_modes(job: Job, given: Path | None, method: str, seed: int) -> Path | None:
    if not uses_modes(method):
        if given:
            raise ConfigError(f"--modes goes with a -bmd method, got --method {method}")
        return None
    command = f"bmd-pipeline discover --task {job.task} --seed {seed}"
    return o.need_folder(given, job.layout.modes(job.task, seed), command)


def _need_tuned(job: Job, given: Path | None, method: str, seed: int) -> Path | None:
    if not is_finetuned(method):
        if given:
            raise ConfigError(f"--tuned goes with the --method that made it, got --method {method}")
        return None
    command = f"bmd-pipeline finetune --task {job.task} --method {method} --seed {seed}"
    return o.need_folder(given, job.layout.tuned(job.task, method, seed), command)
