"""From Snakemake's `config` to the settings of its jobs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.config.load import AUTO, CONFIG_DIR, flatten, load_config, resolve_preset
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError

PRESET_VARIABLE = "BMD_PRESET"


@dataclass(frozen=True)
class WorkflowSettings:
    """What the user said to Snakemake about the settings.

    Attributes:
        preset: the preset, decided; `auto-gpu` is one as well.
        overrides: nested settings of --configfile and --config.
        assignments: `name=value`, from `--config 'set=[...]'`.
        tasks: the tasks that a run without targets makes; none were named if empty.
    """

    preset: str
    overrides: dict[str, Any]
    assignments: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    def load(self, task: str) -> RunConfig:
        """Settings of a run on a task; errors as in `load_config`."""
        return load_config(
            task,
            preset=self.preset,
            overrides=self.overrides,
            overrides_name="--configfile or --config",
            assignments=self.assignments,
        )

    def command_options(self) -> list[str]:
        """The same settings as options of `bmd-pipeline`."""
        settings = [f"{name}={json.dumps(value)}" for name, value in flatten(self.overrides).items()]
        sets = [part for text in (*settings, *self.assignments) for part in ("--set", text)]
        return ["--preset", self.preset, *sets]


def read_workflow_config(config: Mapping[str, Any], *, config_dir: Path = CONFIG_DIR) -> WorkflowSettings:
    """Reads Snakemake's `config`: settings as in config/, and `preset`, `set` and `tasks`.

    What "auto" means is decided once, where Snakemake was started, and handed to its jobs in the environment:
    they read the Snakefile again, maybe on a node with other devices.

    Raises:
        ConfigError: no such preset, `set` is not a list of `name=value`, or `tasks` not one of names.
    """
    asked = config.get("preset") or AUTO
    if asked == AUTO:  # or what config.yaml says, where nothing was asked for
        asked = os.environ.get(PRESET_VARIABLE) or config.get("preset")
    preset = resolve_preset(asked or None, config_dir=config_dir)
    os.environ[PRESET_VARIABLE] = preset
    assignments = _read_texts(config, "set", "name=value")
    tasks = _read_texts(config, "tasks", "names")
    if len(set(tasks)) != len(tasks):
        raise ConfigError(f"tasks must not repeat, got {', '.join(tasks)}")
    overrides = {name: value for name, value in config.items() if name not in ("preset", "set", "tasks")}
    return WorkflowSettings(preset, overrides, assignments, tasks)


def _read_texts(config: Mapping[str, Any], name: str, what: str) -> tuple[str, ...]:
    values = config.get(name) or ()
    if isinstance(values, str):
        values = (values,)
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise ConfigError(f"{name} must be a list of {what}, got {values!r}")
    return tuple(values)


def put_command_on_path() -> None:
    """Lets jobs find `bmd-pipeline` beside this Python, though the environment may not be active."""
    if shutil.which("bmd-pipeline") is None:
        folder = str(Path(sys.executable).parent)
        os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", os.defpath)))
