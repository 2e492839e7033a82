"""`bmd-pipeline tasks` and `check-task`: which tasks there are, what they are like, are they sound."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.job import open_config
from bmd_pipeline.config.load import list_configured
from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks.registry import get_entry, list_entries, load_labellings, make_spec, options_model


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
    open_config(name, None, None, None)  # registers variants and plug-ins
    entry = get_entry(name)
    console.print(f"{entry.name}: {entry.summary}\n", markup=False)
    console.print(_describe(options_model(name)))


def _list_all() -> Table:
    """A row for each task, with the settings of config/tasks/."""
    table = Table(box=None, pad_edge=False)
    for title in ("task", "simulator", "extra"):
        table.add_column(title, no_wrap=True)
    for title in ("obs", "action", "steps", "modes"):
        table.add_column(title, justify="right")
    table.add_column("what it is")
    for entry in list_entries():
        spec = make_spec(entry.name, open_config(entry.name, None, None, None).task.env)
        numbers = (spec.obs_dim, spec.action_dim, spec.horizon, _count_modes(entry.name))
        table.add_row(entry.name, entry.simulator, entry.extra or "", *map(str, numbers), entry.summary)
    return table


def _count_modes(name: str) -> int | str:
    try:
        return len(load_labellings(name)[0].modes)
    except TaskError:  # somebody's that is not finished; check-task says so
        return "–"


def _describe(model: type[BaseModel]) -> Table:
    table = Table("setting", "default", "what it does", box=None, pad_edge=False)
    for field_name, field in model.model_fields.items():
        text = " ".join((field.description or "").split())
        table.add_row(f"task.env.{field_name}", str(field.default), escape(text))
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
