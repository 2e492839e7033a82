"""A stage's command: shared options in, a job ready to run out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from bmd_pipeline.cli import options as o
from bmd_pipeline.config.hashing import Stage
from bmd_pipeline.config.load import load_config, read_settings
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.console import Mode, Reporter, Stop


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

    def start(self, output: Path, method: str | None = None) -> None:
        """Looks whether there is room, and gives torch its cores. Imports it, so check everything cheap before.

        Args:
            output: what the stage will write.
            method: what it fine-tunes or judges.
        """
        from bmd_pipeline.compute import set_threads
        from bmd_pipeline.stages.runtime import require_room

        require_room(self.config, self.command, output, method=method, workers=self.num_workers)
        set_threads(self.num_workers)


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
    task: o.Task,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    threads: o.Threads = None,
    max_minutes: o.MaxMinutes = None,
    root: o.Root = Path(),
    quiet: o.Quiet = False,
    plain: o.Plain = False,
    debug: o.Debug = False,
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
            end where they are.
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
