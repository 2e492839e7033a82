"""Commands beside the stages: the settings and the tasks."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.options import open_config
from bmd_pipeline.config.documented import describe_fields
from bmd_pipeline.config.hashing import STAGES, config_hash, stage_hash
from bmd_pipeline.config.load import find_model, list_configured, list_paths
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError, TaskError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.provenance import require_own
from bmd_pipeline.tasks.registry import env_model, get_entry, list_entries, load_disturbance, load_labellings, make_spec

config_app = typer.Typer(help="Show the settings, or the schema of all there are.")


@config_app.command(epilog="Example: `bmd-pipeline config show --task PushT --preset smoke`")
def show(
    task: o.Task,
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    hashes: Annotated[bool, typer.Option("--hashes", help="Print the hash of each stage's settings instead.")] = False,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Prints all settings of a run on one task, as YAML."""
    settings = open_config(task, preset, config, assign)
    values: dict[str, Any] = settings.model_dump(mode="json")
    if hashes:
        values = {stage: stage_hash(settings, stage) for stage in STAGES} | {"all": config_hash(settings)}
    if as_json:
        o.print_json(values)
    else:
        sys.stdout.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=o.takes_unicode()))


@config_app.command(epilog="Example: `bmd-pipeline config schema --task PushT`")
def schema(
    task: Annotated[
        str | None,
        o.option("--task", "Include this task's own settings.", "-t", autocompletion=o.complete_tasks),
    ] = None,
    config: o.ConfigFile = None,
    debug: o.Debug = False,
) -> None:
    """Prints the JSON Schema of all settings, for editors and checks."""
    document = RunConfig.model_json_schema()
    if task is not None:
        open_config(task, config_file=config)  # registers variants and plug-ins
        document["$defs"]["TaskConfig"]["properties"]["env"] = env_model(task).model_json_schema()
    o.print_json(document)


def tasks(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this task's own settings.", show_default=False, autocompletion=o.complete_tasks),
    ] = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Lists the tasks, or the settings of one."""
    templates = [entry.name for entry in list_entries() if entry.template]
    for configured in list_configured() if name is None else {name}.difference(templates):
        open_config(configured)  # registers variants and plug-ins
    if name is None:
        found = [_describe(entry.name) for entry in list_entries()]
        if as_json:
            o.print_json(found)
            return
        sizes = ("obs", "action", "steps", "modes")
        width = max(len(task["task"]) for task in found)
        o.print_lines(f"{'task':<{width}}  simulator   {'  '.join(f'{size:>6}' for size in sizes)}")
        for task in found:
            numbers = "  ".join(f"{'–' if task[size] is None else task[size]:>6}" for size in sizes)
            o.print_lines(f"{task['task']:<{width}}  {task['simulator']:<10}  {numbers}", f"    {_summarise(task)}")
        return
    described = _describe(name) | {"settings": list(_describe_settings(name))}
    if as_json:
        o.print_json(described)
        return
    o.print_lines(f"{name}: {_summarise(described)}", "")
    for setting in described["settings"]:
        o.print_lines(f"{setting['name']} = {setting['value']}", f"    {setting['description']}")


def _describe(name: str) -> dict[str, Any]:
    """A task with the settings of config/tasks/: names and sizes, and the world that its policies are fine-tuned and
    evaluated in, empty if it is the usual one. Sizes that a template leaves open, or that can't be found, are None."""
    entry = get_entry(name)
    env = {} if entry.template else open_config(name).task.env
    sizes = dict.fromkeys(("obs", "action", "steps", "modes"))
    with suppress(TaskError):  # somebody's that is not finished; check-task says so
        if not entry.template:
            spec = make_spec(name, env)
            sizes |= {"obs": spec.obs_dim, "action": spec.action_dim, "steps": spec.horizon}
            sizes["modes"] = len(load_labellings(name)[0].modes)
    return {
        "task": name,
        "simulator": entry.simulator,
        "extra": entry.extra,
        **sizes,
        "summary": entry.summary,
        "world": load_disturbance(env).describe(),
    }


def _describe_settings(name: str) -> Iterator[dict[str, Any]]:
    """Name, value in config/tasks/, default and description of each of the task's own settings."""
    model, env = env_model(name), {} if get_entry(name).template else open_config(name).task.env
    for setting in list_paths(model):
        *groups, field_name = setting.split(".")
        group = find_model(model, tuple(groups)) or model
        field = group.model_fields[field_name]
        text = " ".join(describe_fields(group).get(field_name, "").split())
        default = "(to be given)" if field.is_required() else field.default
        given: Any = env
        for key in groups:
            given = given.get(key) or {}
        value = given.get(field_name, default)
        yield {"name": f"task.env.{setting}", "value": value, "default": default, "description": text}


def _summarise(task: dict[str, Any]) -> str:
    world, extra = task["world"], task["extra"]
    return f"{task['summary']}{f'; disturbed: {world}' if world else ''}{f' (extra {extra})' if extra else ''}"


def inspect_demos(
    path: Annotated[Path, typer.Argument(help="Demonstrations, in any format that `import-demos` takes.")],
    obs: o.Obs = None,
    plane: Annotated[
        str, typer.Option("--plane", help="Columns of the observation that trajectories are shown in.")
    ] = "0,1",
    picture: Annotated[Path | None, o.option("--picture", "Draw them into this PNG file.")] = None,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Shows demonstrations: counts, lengths, ranges, histograms, trajectories."""
    if picture:
        require_own([o.new_file(picture, Path("demos.png"))], "inspect-demos", None)
    columns = [int(word) for word in plane.split(",") if word.isdecimal()]
    if len(columns) != 2 or plane.count(",") != 1:
        raise ConfigError(f"--plane must be two numbers of columns, such as 0,1, got {plane!r}")
    from bmd_pipeline.stages.inspection import inspect_demos as inspect

    inspection = inspect(path, obs=o.split_names(obs), plane=(columns[0], columns[1]), picture=picture)
    if as_json:
        o.print_json(inspection.document)
    else:
        sys.stdout.write("\n".join(inspection.describe(unicode=o.takes_unicode())) + "\n")


def check_task(
    name: Annotated[str, typer.Argument(help="The task.", show_default=False, autocompletion=o.complete_tasks)],
    preset: o.Preset = None,
    config: o.ConfigFile = None,
    assign: o.Assign = None,
    demos: o.Demos = None,
    root: o.Root = Path(),
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Checks that a task keeps the contract: shapes, limits, seeding, freezing, expert, labels, demonstrations."""
    settings = open_config(name, preset, config, assign)
    from bmd_pipeline.compute import set_threads
    from bmd_pipeline.tasks import checker

    set_threads(1)
    usual = Layout(root, settings.run).demos(settings.task.name)
    if demos:
        o.require_store(demos, settings.task.name)
    store = demos or (usual if usual.exists() else None)
    results = checker.check_task(settings.task.name, settings.task.env, demos=store)
    if as_json:
        o.print_json([asdict(result) for result in results])
    console = Console(highlight=False)
    for result in [] if as_json else results:
        mark = "[green]ok[/]     " if result.passed else "[red]broken[/] "
        mark = "[yellow]skipped[/]" if result.skipped else mark
        console.print(f"{mark}  {escape(result.name)}: {escape(result.detail)}", soft_wrap=True)
    broken = sum(not result.passed for result in results)
    if broken:
        raise TaskError(f"{name} breaks the task contract: {broken} of {len(results)} checks failed")
