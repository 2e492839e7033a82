"""`bmd-pipeline doctor`: what this machine has, and what each missing thing costs."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console

from bmd_pipeline.cli import options as o

Verdict = Literal["ok", "note", "missing"]
_MARKS: dict[Verdict, str] = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}

_NEEDED_DISK_GB = 2.0
_NEEDED_MEMORY_GB = 2.0


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


def doctor(debug: o.Debug = False) -> None:
    """Says what this machine has, and what each missing thing costs. Exit status 2 if something is needed."""
    console = Console(highlight=False)
    broken = False
    for finding in examine():
        broken |= finding.verdict == "missing"
        console.print(f"{_MARKS[finding.verdict]:>15}  {finding.name:<16} {finding.text}", soft_wrap=True)
    raise typer.Exit(2 if broken else 0)


def examine() -> Iterator[Finding]:
    """Looks at everything the pipeline uses, cheap things first."""
    checks: tuple[Callable[[], Finding], ...] = (
        _check_python,
        _check_cores,
        _check_memory,
        _check_disk,
        _check_workflow,
        _check_torch,
        _check_device,
        _check_matmul,
        _check_simulator,
        _check_extras,
        _check_renderer,
        _check_tracker,
    )
    for check in checks:
        try:
            yield check()
        except Exception as error:  # a broken installation fails in its own ways; the doctor reports them all
            name = check.__name__.removeprefix("_check_")
            yield Finding(name, "missing", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _check_python() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    text = f"{platform.python_version()} ({platform.machine()})"
    return Finding("python", "ok" if supported else "note", text if supported else f"{text}; tested on 3.11 and 3.12")


def _check_cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1:
        return Finding("cores", "note", "1; seeds and methods will run one after the other")
    return Finding("cores", "ok", str(cores))


def _check_memory() -> Finding:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total = pages / 1e9
    if total < _NEEDED_MEMORY_GB:
        return Finding("memory", "note", f"{total:.1f} GB; a PushT job needs about {_NEEDED_MEMORY_GB:.0f} GB")
    return Finding("memory", "ok", f"{total:.1f} GB")


def _check_disk() -> Finding:
    free = shutil.disk_usage(Path()).free / 1e9
    if free < _NEEDED_DISK_GB:
        return Finding("disk", "note", f"{free:.1f} GB free here; a whole run may need {_NEEDED_DISK_GB:.0f} GB")
    return Finding("disk", "ok", f"{free:.1f} GB free here")


def _check_workflow() -> Finding:
    return Finding("workflow", "ok", f"snakemake {version('snakemake')}")


def _check_torch() -> Finding:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return Finding("torch", "ok", f"{torch.__version__} ({build})")


def _check_device() -> Finding:
    import torch

    from bmd_pipeline.config.load import has_cuda_device

    if torch.cuda.is_available():
        return Finding("device", "ok", f"{torch.cuda.get_device_name()}; preset gpu is taken by itself")
    if has_cuda_device():
        return Finding(
            "device",
            "note",
            "a CUDA device is here, but this torch can't use it: install a CUDA build of torch",
        )
    return Finding("device", "note", "no CUDA device; preset cpu is taken by itself, everything runs on the CPU")


def _check_matmul() -> Finding:
    from bmd_pipeline.compute import enable_fast_matmul, set_threads

    set_threads(1)
    chosen = enable_fast_matmul()
    if chosen == "none":
        return Finding("matrix backend", "ok", "torch's own (the faster kernels bring nothing on this CPU)")
    return Finding("matrix backend", "ok", f"oneDNN's {chosen} kernels: faster, and still float32 on this CPU")


def _check_simulator() -> Finding:
    try:
        versions = f"mani_skill {version('mani_skill')}, sapien {version('sapien')}"
    except PackageNotFoundError as error:
        return Finding("simulator", "note", f"{error.name} is not installed: PushT can't run, native tasks can")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAPIEN's about Vulkan: the next line of the report says it better
        importlib.import_module("sapien")  # a broken wheel or C library shows here
    return Finding("simulator", "ok", versions)


def _check_extras() -> Finding:
    from bmd_pipeline.tasks.registry import find_missing, list_entries

    missing = [f"{entry.extra} ({entry.name})" for entry in list_entries() if find_missing(entry)]
    if missing:
        return Finding("extras", "note", f"not installed: {', '.join(missing)}; make setup installs them")
    return Finding("extras", "ok", "what every task's simulator needs is installed")


def _check_renderer() -> Finding:
    from bmd_pipeline.sim.headless import have_render_device

    if have_render_device():
        return Finding("renderer", "ok", "a Vulkan device")
    return Finding(
        "renderer", "note", "no Vulkan device: nothing is lost but videos (Mesa's lavapipe >= 24.3 would do)"
    )


def _check_tracker() -> Finding:
    try:
        return Finding("tracker", "ok", f"wandb {version('wandb')}, used only if execution.tracker says so")
    except PackageNotFoundError:
        return Finding("tracker", "note", "wandb is not installed: metrics stay in local files")
