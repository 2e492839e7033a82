"""`bmd-pipeline tasks` and `check-task`: which tasks there are, what they are like, are they sound."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.job import open_config
from bmd_pipeline.config.load import find_model, list_configured, list_paths
from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks.registry import (
    env_model,
    get_entry,
    list_entries,
    load_disturbance,
    load_labellings,
    make_spec,
)


def list_tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task's own settings.", show_default=False)] = None,
    debug: o.Debug = False,
) -> None:
    """Lists the tasks, or the settings of one."""
    console = Console(highlight=False)
    if name is None:
        for configured in list_configured():
            open_config(configured, None, None, None)  # registers variants and plug-ins
        console.print(_list_all())
        return
    env = open_config(name, None, None, None).task.env  # registers variants and plug-ins
    console.print(f"{name}: {_summarise(name, env)}\n", markup=False)
    console.print(_list_settings(env_model(name)))


def _list_all() -> Table:
    """A row for each task, with the settings of config/tasks/."""
    table = Table(box=None, pad_edge=False)
    for title in ("task", "simulator", "extra"):
        table.add_column(title, no_wrap=True)
    for title in ("obs", "action", "steps", "modes"):
        table.add_column(title, justify="right")
    table.add_column("what it is", overflow="fold")
    for entry in list_entries():
        env = open_config(entry.name, None, None, None).task.env
        spec = make_spec(entry.name, env)
        numbers = (spec.obs_dim, spec.action_dim, spec.horizon, _count_modes(entry.name))
        table.add_row(entry.name, entry.simulator, entry.extra or "", *map(str, numbers), _summarise(entry.name, env))
    return table


def _summarise(name: str, env: dict[str, Any]) -> str:
    """What a task is, and the world that its policies are fine-tuned and evaluated in if it is not the usual one."""
    world = load_disturbance(env).describe()
    return f"{get_entry(name).summary}{f'; disturbed: {world}' if world else ''}"


def _count_modes(name: str) -> int | str:
    try:
        return len(load_labellings(name)[0].modes)
    except TaskError:  # somebody's that is not finished; check-task says so
        return "–"


def _list_settings(model: type[BaseModel]) -> Table:
    table = Table("setting", "default", "what it does", box=None, pad_edge=False)
    for setting in list_paths(model):
        *groups, field_name = setting.split(".")
        group = find_model(model, tuple(groups)) or model
        field = group.model_fields[field_name]
        text = " ".join((field.description or "").split())
        table.add_row(f"task.env.{setting}", str(field.default), escape(text))
    return table


def check(
    name: Annotated[str, typer.Argument(help="The task.", show_default=False)],
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    debug: o.Debug = False,
) -> None:
    """Checks that a task keeps the contract: shapes, limits, seeding, freezing, expert, labels."""
    settings = open_config(name, preset, config, assign)
    from bmd_pipeline.compute import set_threads
    from bmd_pipeline.tasks.checker import check_task

    set_threads(1)
    console = Console(highlight=False)
    results = check_task(settings.task.name, settings.task.env)
    for result in results:
        mark = "[green]ok[/]     " if result.passed else "[red]broken[/] "
        mark = "[yellow]skipped[/]" if result.skipped else mark
        console.print(f"{mark}  {escape(result.name)}: {escape(result.detail)}", soft_wrap=True)
    broken = sum(not result.passed for result in results)
    if broken:
        raise TaskError(f"{name} breaks the task contract: {broken} of {len(results)} checks failed")
