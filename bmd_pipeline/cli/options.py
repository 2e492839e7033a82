"""Options that commands share, the checks that go with them, and a stage's job made of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.load import load_config, read_settings
from bmd_pipeline.config.resources import estimate_mem_mb, free_memory_mb
from bmd_pipeline.config.schema import METHODS, RunConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.layout import RUN_FILE, Layout
from bmd_pipeline.stages.console import Mode, Reporter, Stop
from bmd_pipeline.tasks.registry import get_entry

# ---- Options that several commands share, and the checks that go with them ----

_SETTINGS, _OUTPUT = "Settings", "Messages"

Task = Annotated[str, typer.Option("--task", "-t", help="The task; `bmd-pipeline tasks` lists them.")]
Method = Annotated[
    str, typer.Option("--method", "-m", help=f"How to fine-tune: {', '.join(METHODS)}.", show_default=False)
]
Seed = Annotated[int, typer.Option("--seed", "-s", min=0, max=2**31 - 1, help="Seed; any number will do.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write.", show_default=False)]
Demos = Annotated[Path | None, typer.Option("--demos", help="Demonstration store.", show_default=False)]
Policy = Annotated[Path | None, typer.Option("--policy", help="Folder of the pre-trained policy.", show_default=False)]
Modes = Annotated[Path | None, typer.Option("--modes", help="Folder of the discovered modes.", show_default=False)]
Finetuned = Annotated[
    Path | None, typer.Option("--finetuned", help="Folder of the fine-tuned policy.", show_default=False)
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="How much to compute: smoke, cpu, gpu, paper, auto, auto-gpu. Default: what config/config.yaml says.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file of settings laid over those in config/.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Assign = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="One setting, e.g. finetune.regulariser.mi_weight=0.3; may be repeated.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        help="Cores to use; simulator tasks start as many workers. Default: execution.threads.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
MaxMinutes = Annotated[
    float | None,
    typer.Option(
        "--max-minutes",
        min=0.0,
        max=1e6,
        help="Save and stop after that many minutes, with exit status 75; the same command goes on from there. "
        "Default: execution.max_minutes.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Root = Annotated[
    Path,
    typer.Option(
        "--root",
        help="Folder that holds data/ and results/.",
        rich_help_panel=_SETTINGS,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings only.", rich_help_panel=_OUTPUT)]
Plain = Annotated[
    bool,
    typer.Option("--plain", help="Lines instead of bars; taken by itself in a pipe.", rich_help_panel=_OUTPUT),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_OUTPUT)]


def need_folder(given: Path | None, default: Path, command: str) -> Path:
    """A finished output folder of an earlier stage.

    Args:
        given: what the user named.
        default: where the layout has it.
        command: what makes it, for the message.

    Raises:
        ArtifactError: it is not there or not finished.
    """
    folder = given or default
    if not (folder / RUN_FILE).is_file():
        raise ArtifactError(f"{folder / RUN_FILE} is missing: make it with `{command}`")
    return folder


def new_file(given: Path | None, default: Path) -> Path:
    """Where a file may be written: nothing is there, or an ordinary file.

    Raises:
        ArtifactError: a folder or a device is there.
    """
    path = _named(given or default)
    if path.exists() and not path.is_file():
        raise ArtifactError(f"{path} can't be written: what is there is no file")
    return path


def new_folder(given: Path | None, default: Path) -> Path:
    """Where files may be written into: nothing is there, or a folder.

    Raises:
        ArtifactError: something else is there.
    """
    path = _named(given or default)
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"{path} can't be written: what is there is no folder")
    return path


def _named(path: Path) -> Path:
    if path.name in ("", ".."):
        raise ArtifactError(f"{path} can't be written: it has no name of its own")
    return path


def need_path(given: Path | None, default: Path, command: str) -> Path:
    """A file or store of an earlier stage; arguments and errors as in `need_folder`."""
    path = given or default
    if not path.exists():
        raise ArtifactError(f"{path} is missing: make it with `{command}`")
    return path


# ---- A stage's command: shared options in, a job ready to run out ----


@dataclass(frozen=True)
class Job:
    """One stage on one task.

    Attributes:
        command: what was asked for: the stage's name.
        config: validated settings.
        layout: where everything is.
        reporter: what the stage prints through.
        num_workers: cores it may use.
        stop: who may ask the stage to stop.
    """

    command: str
    config: RunConfig
    layout: Layout
    reporter: Reporter
    num_workers: int
    stop: Stop

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config.task.name

    def start(self) -> None:
        """Gives torch its cores; says so if memory may run out. Imports torch, so check everything cheap before."""
        from bmd_pipeline.compute import set_threads

        needed, free = estimate_stage_mb(self.config, self.command, self.num_workers), free_memory_mb()
        if free is not None and needed > free:
            self.reporter.log(f"{self.command} may take {needed} MB of memory, {free:.0f} MB is available")
        set_threads(self.num_workers)


def estimate_stage_mb(config: RunConfig, stage: str, num_workers: int) -> int:
    """Memory that a stage's job would ask a cluster for, in MB; that of a CUDA device is left out."""
    simulator = get_entry(config.task.name).simulator
    return estimate_mem_mb(config, stage, threads=num_workers, simulator=simulator)


def open_config(task: str, preset: str | None, config_file: Path | None, assign: Sequence[str] | None) -> RunConfig:
    """Loads the settings that the shared options describe."""
    return load_config(
        task,
        preset=preset,
        overrides=read_settings(config_file) if config_file else None,
        overrides_name=str(config_file),
        overrides_path=config_file,
        assignments=assign or (),
    )


def open_job(
    command: str,
    stage: Stage,
    label: str,
    *,
    task: Task,
    preset: Preset = None,
    config: ConfigFile = None,
    assign: Assign = None,
    threads: Threads = None,
    max_minutes: MaxMinutes = None,
    root: Root = Path(),
    quiet: Quiet = False,
    plain: Plain = False,
    debug: Debug = False,
) -> Job:
    """Turns the options that all stages share into a job; `debug` is for `main`."""
    settings = open_config(task, preset, config, assign)
    mode: Mode | None = "quiet" if quiet else "plain" if plain else None
    num_workers = threads or getattr(settings.execution.threads, stage)
    stop = Stop(settings.execution.max_minutes if max_minutes is None else max_minutes)
    return Job(command, settings, Layout(root), Reporter(mode, label=label), num_workers, stop)


def stage_command(stage: Stage, *, resumable: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function of a job: adds the shared options to its own.

    Args:
        stage: whose number of threads it takes.
        resumable: whether it hands `job.stop` to a stage that saves its progress when it is asked to stop. Others
            end at once, and have no time limit.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        skipped = () if resumable else ("max_minutes",)
        shared, own = _options(open_job, "command", "stage", "label", *skipped), _options(run, "job")

        def command(**values: Any) -> None:
            which = (run.__name__, values["task"], values.get("method"), values.get("seed"))
            label = " ".join(str(part) for part in which if part is not None)
            job = open_job(run.__name__, stage, label, **{name: values.pop(name) for name in shared})
            with job.stop if resumable else nullcontext():
                run(job, **values)

        # typer reads names, types and defaults from the signature; the task comes first
        parameters = {"task": shared["task"], **own, **shared}
        command.__name__, command.__doc__ = run.__name__, run.__doc__
        command.__annotations__ = {name: item.annotation for name, item in parameters.items()}
        command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
        return command

    return decorate


def _options(function: Callable[..., Any], *skip: str) -> dict[str, inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return {
        name: item.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, item in inspect.signature(function).parameters.items()
        if name not in skip
    }
