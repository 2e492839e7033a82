"""Commands beside the stages: the settings and the tasks."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.options import open_config
from bmd_pipeline.config.hashing import STAGES, config_hash, stage_hash
from bmd_pipeline.config.load import find_model, list_configured, list_paths
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import TaskError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.tasks.registry import env_model, get_entry, list_entries, load_disturbance, load_labellings, make_spec

config_app = typer.Typer(help="Show the settings, or the schema of all there are.")


@config_app.command()
def show(
    task: o.Task,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    hashes: Annotated[bool, typer.Option("--hashes", help="Print the hash of each stage's settings instead.")] = False,
    debug: o.Debug = False,
) -> None:
    """Prints all settings of a run on one task, as YAML."""
    settings = open_config(task, preset, config, assign)
    values: dict[str, Any] = settings.model_dump(mode="json")
    if hashes:
        values = {stage: stage_hash(settings, stage) for stage in STAGES} | {"all": config_hash(settings)}
    sys.stdout.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=_takes_unicode()))


@config_app.command()
def schema(
    task: Annotated[str | None, o.option("--task", "Include this task's own settings.", "-t")] = None,
    config: o.ConfigFile = None,
    debug: o.Debug = False,
) -> None:
    """Prints the JSON Schema of all settings, for editors and checks."""
    document = RunConfig.model_json_schema()
    if task is not None:
        open_config(task, config_file=config)  # registers variants and plug-ins
        document["$defs"]["TaskConfig"]["properties"]["env"] = env_model(task).model_json_schema()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not _takes_unicode()) + "\n")


def _takes_unicode() -> bool:
    """Whether all of a document can be printed as it is; else it holds escapes, which its readers understand."""
    return (sys.stdout.encoding or "").lower().startswith("utf")


def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task's own settings.", show_default=False)] = None,
    debug: o.Debug = False,
) -> None:
    """Lists the tasks, or the settings of one."""
    console = Console(highlight=False)
    if name is None:
        for configured in list_configured():
            open_config(configured)  # registers variants and plug-ins
        console.print(_list_all())
        return
    env = open_config(name).task.env  # registers variants and plug-ins
    console.print(f"{name}: {_summarise(name, env)}\n", markup=False)
    table = Table("setting", "default", "what it does", box=None, pad_edge=False)
    model = env_model(name)
    for setting in list_paths(model):
        *groups, field_name = setting.split(".")
        field = (find_model(model, tuple(groups)) or model).model_fields[field_name]
        text = " ".join((field.description or "").split())
        table.add_row(f"task.env.{setting}", str(field.default), escape(text))
    console.print(table)


def _list_all() -> Table:
    """A row for each task, with the settings of config/tasks/."""
    names = [Column(title, no_wrap=True) for title in ("task", "simulator", "extra")]
    numbers = [Column(title, justify="right") for title in ("obs", "action", "steps", "modes")]
    table = Table(*names, *numbers, Column("what it is", overflow="fold"), box=None, pad_edge=False)
    for entry in list_entries():
        env = open_config(entry.name).task.env
        spec = make_spec(entry.name, env)
        sizes = map(str, (spec.obs_dim, spec.action_dim, spec.horizon, _count_modes(entry.name)))
        table.add_row(entry.name, entry.simulator, entry.extra or "", *sizes, _summarise(entry.name, env))
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


def check_task(
    name: Annotated[str, typer.Argument(help="The task.", show_default=False)],
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    demos: o.Demos = None,
    root: o.Root = Path(),
    debug: o.Debug = False,
) -> None:
    """Checks that a task keeps the contract: shapes, limits, seeding, freezing, expert, labels, demonstrations."""
    settings = open_config(name, preset, config, assign)
    from bmd_pipeline.compute import set_threads
    from bmd_pipeline.tasks import checker

    set_threads(1)
    console = Console(highlight=False)
    usual = Layout(root, settings.run).demos(settings.task.name)
    store = demos or (usual if usual.exists() else None)
    results = checker.check_task(settings.task.name, settings.task.env, demos=store)
    for result in results:
        mark = "[green]ok[/]     " if result.passed else "[red]broken[/] "
        mark = "[yellow]skipped[/]" if result.skipped else mark
        console.print(f"{mark}  {escape(result.name)}: {escape(result.detail)}", soft_wrap=True)
    broken = sum(not result.passed for result in results)
    if broken:
        raise TaskError(f"{name} breaks the task contract: {broken} of {len(results)} checks failed")
