"""`bmd-pipeline doctor`: what this machine has, and what each missing thing costs."""

import importlib
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.options import open_config
from bmd_pipeline.config.resources import NATIVE, free_disk_mb, free_memory_mb, usable_cores
from bmd_pipeline.config.schema import RunConfig, flatten
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.tasks.registry import advise_install, find_missing, get_entry, list_entries

Verdict = Literal["ok", "note", "missing"]
_MARKS: dict[Verdict, str] = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}


Found = tuple[Verdict, str]
Check = Callable[[RunConfig | None], Found]


class Finding(NamedTuple):
    """One line of the report."""

    name: str  # what was looked at
    verdict: Verdict  # note: works, at a cost; missing: the pipeline can't run
    text: str  # what was found, and what its absence costs


def doctor(
    task: Annotated[
        str | None,
        o.option("--task", "Also check what a run on this task needs.", "-t", autocompletion=o.complete_tasks),
    ] = None,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Says what this machine has, what each missing thing costs and how to get it.

    Exit status 2 if something that is needed is missing: for anything, or with --task for a run on it.
    """
    if task is None and (preset or config or assign):
        raise ConfigError("--preset, --config and --set go with --task, the run that they are the settings of")
    settings = open_config(task, preset, config, assign) if task else None
    console = Console(highlight=False)
    broken = False
    findings = []
    for finding in examine(settings):
        findings.append(finding._asdict())
        name, verdict, text = finding
        broken |= verdict == "missing"
        if not as_json:  # each as it is found: some take seconds
            console.print(f"{_MARKS[verdict]:>15}  {name:<16} {escape(text)}", soft_wrap=True)
    if as_json:
        o.print_json(findings)
    raise typer.Exit(2 if broken else 0)


def examine(settings: RunConfig | None = None) -> Iterator[Finding]:
    """Looks at everything that the pipeline uses, or that a run with these settings needs; cheap things first."""
    checks: dict[str, Check] = {
        "python": _check_python,
        "cores": _check_cores,
        "memory": _check_memory,
        "disk": _check_disk,
        "workflow": _check_workflow,
        "torch": _check_torch,
        "device": _check_device,
        "simulator": _check_simulator,
        "extras": _check_extras,
        "renderer": _check_renderer,
        "tracker": _check_tracker,
    }
    for name, check in checks.items():
        try:
            yield Finding(name, *check(settings))
        except Exception as error:  # a broken installation fails in its own ways; the doctor reports them all
            yield Finding(name, "missing", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _check_python(settings: RunConfig | None) -> Found:
    text = f"{platform.python_version()} ({platform.machine()})"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return "ok", text
    return "note", f"{text}; 3.11 is tested: make the environment anew with it"


def _check_cores(settings: RunConfig | None) -> Found:
    cores = usable_cores()
    asked = max(settings.execution.threads.model_dump().values()) if settings else 1
    if asked > cores:
        return (
            "note",
            f"{cores}, and a stage asks for {asked}, more than there are; lower execution.threads to fit",
        )
    if cores == 1:
        return "note", "1; seeds and methods will run one after the other"
    return "ok", str(cores)


def _check_memory(settings: RunConfig | None) -> Found:
    free = free_memory_mb()
    return ("note", "unknown here") if free is None else ("ok", f"{free:.0f} MB free")


def _check_disk(settings: RunConfig | None) -> Found:
    return "ok", f"{free_disk_mb(Path()):.0f} MB free here"


def _check_workflow(settings: RunConfig | None) -> Found:
    return "ok", f"snakemake {version('snakemake')}"


_PRECISIONS = ("pretrain.precision", "finetune.denoiser.precision")


def _check_torch(settings: RunConfig | None) -> Found:
    import torch

    from bmd_pipeline.compute import has_bfloat16_units, select_device

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    text = f"{torch.__version__} ({build}), {torch.get_num_threads()} threads by itself"
    if has_bfloat16_units():
        return "ok", f"{text}; matrix units for bfloat16 ({' and '.join(_PRECISIONS)})"
    values = flatten(settings.model_dump()) if settings else {}
    asked = [name for name in _PRECISIONS if values.get(name) == "bfloat16"]
    if asked and select_device("auto").type == "cpu":
        return "note", f"{text}; no matrix units for bfloat16, so that {asked[0]}=float32 is faster"
    return "ok", text


def _check_device(settings: RunConfig | None) -> Found:
    import torch

    from bmd_pipeline.config.load import has_cuda_device

    physics = settings is not None and settings.task.physics == "cuda"
    if torch.cuda.is_available():
        text = f"{torch.cuda.get_device_name()}; preset gpu is taken by itself for native tasks"
        if physics:
            untried = "task.physics=cuda was never run, and SAPIEN downloads PhysX's library for GPUs when it starts"
            return "note", f"{text}; {untried}"
        return "ok", text
    text = "no CUDA device"
    if has_cuda_device():
        text = "a CUDA device is here, but this torch can't use it: install a CUDA build of torch (pytorch.org)"
    if physics:
        return "missing", f"{text}; or set task.physics to cpu"
    if settings is not None and settings.execution.device == "cuda":
        return "missing", f"{text}; or set execution.device to auto"
    return "note", f"{text}; everything runs on the CPU, and preset cpu is taken by itself"


def _check_simulator(settings: RunConfig | None) -> Found:
    simulator = get_entry(settings.task.name).simulator if settings else ""
    wanted = simulator == "ManiSkill"
    if settings is not None and not wanted:
        what = "needs none" if simulator == NATIVE else f"runs in {simulator}, see extras"
        return "ok", f"{settings.task.name} {what}"
    try:
        versions = f"mani_skill {version('mani_skill')}, sapien {version('sapien')}"
    except PackageNotFoundError as error:
        simulated = ", ".join(entry.name for entry in list_entries() if entry.simulator == "ManiSkill")
        text = f"{error.name} is not installed: {simulated} can't run, other tasks can; `pip install mani_skill`"
        return "missing" if wanted else "note", text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAPIEN's about Vulkan: the next line of the report says it better
        importlib.import_module("sapien")  # a broken wheel or C library shows here
    return "ok", versions


def _check_extras(settings: RunConfig | None) -> Found:
    entries = list_entries() if settings is None else [get_entry(settings.task.name)]
    lacking = [entry for entry in entries if find_missing(entry)]
    if lacking:
        missing = ", ".join(f"{' '.join(find_missing(entry))} ({entry.name})" for entry in lacking)
        advice = ", ".join(dict.fromkeys(f"`{advise_install(entry)}`" for entry in lacking))
        text = f"not installed: {missing}; {advice}"
        return "note" if settings is None else "missing", text
    return "ok", "what the simulators need besides is installed"


def _check_renderer(settings: RunConfig | None) -> Found:
    from bmd_pipeline.sim.backend import have_render_device

    if have_render_device():
        return "ok", "a Vulkan device"
    cost = "nothing is lost but `play` of ManiSkill's tasks (Mesa's lavapipe >= 24.3 would do)"
    return "note", f"no Vulkan device: {cost}"


def _check_tracker(settings: RunConfig | None) -> Found:
    wanted = "none" if settings is None else settings.execution.tracker
    found, missing = [], []
    for name in ("tensorboard", "wandb"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if wanted in missing:
        return "note", f"{wanted} is not installed: metrics stay in local files; `pip install {wanted}`"
    return "ok", f"{', '.join(found) or 'none'}, used only if execution.tracker says so"
