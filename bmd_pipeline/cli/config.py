"""`bmd-pipeline config`: what the settings are, and which there could be."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
import yaml

from bmd_pipeline.cli import options as o
from bmd_pipeline.cli.job import open_config
from bmd_pipeline.config.hashing import STAGES, config_hash, stage_hash
from bmd_pipeline.config.schema import RunConfig

app = typer.Typer(help="Show the settings, or the schema of all there are.")


@app.command()
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
    sys.stdout.write(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


@app.command()
def schema(
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="Include this task's own settings.", show_default=False),
    ] = None,
    config: o.ConfigFile = None,
    debug: o.Debug = False,
) -> None:
    """Prints the JSON Schema of all settings, for editors and checks."""
    document = RunConfig.model_json_schema()
    if task is not None:
        from bmd_pipeline.tasks.registry import env_model

        open_config(task, None, config, None)  # registers variants and plug-ins
        document["$defs"]["TaskConfig"]["properties"]["env"] = env_model(task).model_json_schema()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
