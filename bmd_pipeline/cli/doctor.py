"""`bmd-pipeline doctor`: what this machine has, and what each missing thing costs."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.options import estimate_stage_mb, open_config
from bmd_pipeline.config.resources import free_disk_mb, free_memory_mb
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.tasks.registry import find_missing, get_entry, list_entries

Verdict = Literal["ok", "note", "missing"]
_MARKS: dict[Verdict, str] = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        verdict: note: works, at a cost; missing: the pipeline can't run.
        text: what was found, and what its absence costs.
    """

    name: str
    verdict: Verdict
    text: str


Check = Callable[[RunConfig | None], Finding]


def doctor(
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Also check what a run on this task needs.", show_default=False)
    ] = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    debug: o.Debug = False,
) -> None:
    """Says what this machine has, what each missing thing costs and how to get it.

    Exit status 2 if something that is needed is missing: for anything, or with --task for a run on it.
    """
    settings = open_config(task, preset, config, assign) if task else None
    console = Console(highlight=False)
    broken = False
    for finding in examine(settings):
        broken |= finding.verdict == "missing"
        console.print(f"{_MARKS[finding.verdict]:>15}  {finding.name:<16} {escape(finding.text)}", soft_wrap=True)
    raise typer.Exit(2 if broken else 0)


def examine(settings: RunConfig | None = None) -> Iterator[Finding]:
    """Looks at everything that the pipeline uses, or that a run with these settings needs; cheap things first."""
    checks: tuple[Check, ...] = (
        _check_python,
        _check_cores,
        _check_memory,
        _check_disk,
        _check_workflow,
        _check_torch,
        _check_device,
        _check_simulator,
        _check_extras,
        _check_renderer,
        _check_tracker,
    )
    for check in checks:
        yield _answer(check, settings)
    if settings is not None:
        for stage in type(settings.execution.threads).model_fields:
            yield _answer(functools.partial(_check_stage, stage), settings, stage)


def _answer(check: Check, settings: RunConfig | None, name: str | None = None) -> Finding:
    try:
        return check(settings)
    except Exception as error:  # a broken installation fails in its own ways; the doctor reports them all
        name = name or getattr(check, "__name__", "").removeprefix("_check_")
        return Finding(name, "missing", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _check_python(settings: RunConfig | None) -> Finding:
    text = f"{platform.python_version()} ({platform.machine()})"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", "ok", text)
    return Finding("python", "note", f"{text}; 3.11 is tested: `make setup PYTHON=python3.11` in the repository's root")


def _check_cores(settings: RunConfig | None) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = max(settings.execution.threads.model_dump().values()) if settings else 1
    if asked > cores:
        text = f"{cores}, and a stage asks for {asked}: slower, nothing else; lower execution.threads to fit"
        return Finding("cores", "note", text)
    if cores == 1:
        return Finding("cores", "note", "1; seeds and methods will run one after the other")
    return Finding("cores", "ok", str(cores))


def _check_memory(settings: RunConfig | None) -> Finding:
    free = free_memory_mb()
    return Finding("memory", "note", "unknown here") if free is None else Finding("memory", "ok", f"{free:.0f} MB free")


def _check_disk(settings: RunConfig | None) -> Finding:
    return Finding("disk", "ok", f"{free_disk_mb(Path()):.0f} MB free here")


def _check_workflow(settings: RunConfig | None) -> Finding:
    return Finding("workflow", "ok", f"snakemake {version('snakemake')}")


def _check_torch(settings: RunConfig | None) -> Finding:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", "ok", f"{torch.__version__} ({build}), {torch.get_num_threads()} threads by itself")


def _check_device(settings: RunConfig | None) -> Finding:
    import torch

    from bmd_pipeline.config.load import has_cuda_device

    physics = settings is not None and settings.task.physics == "cuda"
    if torch.cuda.is_available():
        text = f"{torch.cuda.get_device_name()}; preset gpu is taken by itself for native tasks"
        if physics:
            untried = "task.physics=cuda was never run, and SAPIEN downloads PhysX's library for GPUs when it starts"
            return Finding("device", "note", f"{text}; {untried}")
        return Finding("device", "ok", text)
    if has_cuda_device():
        text = "a CUDA device is here, but this torch can't use it: install a CUDA build of torch (pytorch.org)"
    else:
        text = "no CUDA device"
    if physics:
        return Finding("device", "missing", f"{text}; or set task.physics to cpu")
    if settings is not None and settings.execution.device == "cuda":
        return Finding("device", "missing", f"{text}; or set execution.device to auto")
    return Finding("device", "note", f"{text}; everything runs on the CPU, and preset cpu is taken by itself")


def _check_simulator(settings: RunConfig | None) -> Finding:
    simulator = get_entry(settings.task.name).simulator if settings else ""
    wanted = simulator == "ManiSkill"
    if settings is not None and not wanted:
        what = "needs none" if simulator == "native" else f"runs in {simulator}, see extras"
        return Finding("simulator", "ok", f"{settings.task.name} {what}")
    try:
        versions = f"mani_skill {version('mani_skill')}, sapien {version('sapien')}"
    except PackageNotFoundError as error:
        simulated = ", ".join(entry.name for entry in list_entries() if entry.simulator == "ManiSkill")
        text = f"{error.name} is not installed: {simulated} can't run, other tasks can; `make setup`"
        return Finding("simulator", "missing" if wanted else "note", text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAPIEN's about Vulkan: the next line of the report says it better
        importlib.import_module("sapien")  # a broken wheel or C library shows here
    return Finding("simulator", "ok", versions)


def _check_extras(settings: RunConfig | None) -> Finding:
    entries = list_entries() if settings is None else [get_entry(settings.task.name)]
    missing = [f"{entry.extra} ({entry.name})" for entry in entries if find_missing(entry)]
    if missing:
        verdict: Verdict = "note" if settings is None else "missing"
        return Finding("extras", verdict, f"not installed: {', '.join(missing)}; make setup installs them")
    return Finding("extras", "ok", "what the simulators need besides is installed")


def _check_renderer(settings: RunConfig | None) -> Finding:
    from bmd_pipeline.sim.backend import have_render_device

    if have_render_device():
        return Finding("renderer", "ok", "a Vulkan device")
    return Finding(
        "renderer",
        "note",
        "no Vulkan device: nothing is lost but `film` of ManiSkill's tasks (Mesa's lavapipe >= 24.3 would do)",
    )


def _check_tracker(settings: RunConfig | None) -> Finding:
    wanted = settings is not None and settings.execution.tracker == "wandb"
    try:
        return Finding("tracker", "ok", f"wandb {version('wandb')}, used only if execution.tracker says so")
    except PackageNotFoundError:
        text = "wandb is not installed: metrics stay in local files"
        return Finding("tracker", "note", f"{text}; `pip install wandb`" if wanted else text)


def _check_stage(stage: str, settings: RunConfig | None) -> Finding:
    """Whether memory may run out in a stage of the run."""
    assert settings is not None  # asked for a run only
    needed, free = estimate_stage_mb(settings, stage, getattr(settings.execution.threads, stage)), free_memory_mb()
    text = f"may take {needed} MB of memory"
    if free is not None and needed > free:
        return Finding(stage, "note", f"{text}, {free:.0f} MB is available")
    return Finding(stage, "ok", text)
