"""Runs that differ from a configured one by a few settings: base policies, the cells of a grid; and who reads which."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bmd_pipeline.config.hashing import stage_slice
from bmd_pipeline.config.schema import AxisValue, RunConfig, flatten, format_axis_value, grid_methods, grid_seeds
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.methods import compared_policies, paired_methods

# `<Task>-base<k>` is the task with root seed k, with demonstrations, a policy, modes and results of its own:
# fine-tuning seeds share one base policy, so they say nothing about another one.

_NAME = re.compile(r"(?P<task>(?:(?!-base\d).)+)-base(?P<seed>0|[1-9][0-9]{0,9})")


def base_name(task: str, seed: int) -> str:
    """Name of the task with this root seed."""
    return f"{task}-base{seed}"


def split_base(name: str) -> tuple[str, int | None]:
    """Splits `<Task>-base<k>` into the task and its root seed k; of any other name it returns the name and None."""
    found = _NAME.fullmatch(name)
    return (found["task"], int(found["seed"])) if found else (name, None)


def configure_base(config: RunConfig, seed: int) -> RunConfig:
    """The run of the task `<Task>-base<seed>`; equal to what `load_config` gives for that name."""
    task = config.task
    changes = {"name": base_name(task.name, seed), "extends": task.extends or task.name}
    return config.model_copy(update={"task": task.model_copy(update=changes), "seed": seed})


@dataclass(frozen=True)
class GridCell:
    """One combination of the values of a grid's axes, as a list of changes that rules and commands (`--set`) share."""

    name: str  # of its folder, as "mi_weight=0.1,num_modes=8"
    changes: dict[str, AxisValue]  # what it changes in the run, by dotted name
    config: RunConfig  # the run with these changes
    is_own: bool  # whether they change nothing, so that the run's own results are this cell's
    discovery: str | None  # name of the folder that holds its modes; None if they are the run's own

    @property
    def modes(self) -> str:
        """Folder of its modes below results/<Task>."""
        return f"grid/{self.discovery}/modes" if self.discovery else "modes"

    def folder(self, method: str) -> str:
        """Folder of a method's seeds below results/<Task>."""
        return method if self.is_own else f"grid/{self.name}/{method}"

    def assignments(self) -> list[str]:
        """The changes as assignments of `bmd-pipeline --set`: `name=value`."""
        return [f"{name}={json.dumps(value)}" for name, value in self.changes.items()]


def list_cells(config: RunConfig) -> list[GridCell]:
    """The cells of a run's grid, the last axis varying fastest.

    Raises:
        ConfigError: no axis is given.
        ValidationError: a combination is out of bounds, which `load_config` finds before.
    """
    if not config.grid.axes:
        raise ConfigError("grid.axes is empty: name settings and their values, as {discover.num_modes: [2, 8]}")
    cells = []
    for values in itertools.product(*config.grid.axes.values()):
        axes = dict(zip(config.grid.axes, values, strict=True))
        changes, here = _apply_axes(config, axes)
        found = _keep_discovered(here, axes)
        discovery = None if not found or _apply_axes(config, found)[1] == config else _name_cell(config, found)
        cells.append(GridCell(_name_cell(config, axes), changes, here, here == config, discovery))
    return cells


def list_discoveries(cells: Iterable[GridCell]) -> dict[str, GridCell]:
    """The discoveries that cells need beside the run's own, by the name of their folder."""
    found = {}
    for cell in cells:
        if cell.discovery is not None:
            changes = _keep_discovered(cell.config, cell.changes)
            found[cell.discovery] = replace(cell, name=cell.discovery, changes=changes)
    return found


def list_evaluations(config: RunConfig, stage: str) -> list[tuple[str, int]]:
    """Folder below results/<Task> and seed of every evaluation that `summarise`, `compare`, `verdict` or `grid` reads.

    Raises:
        ConfigError: a verdict has no pair of methods, or a grid no axes.
    """
    if stage == "grid":
        folders = [cell.folder(method) for cell in list_cells(config) for method in grid_methods(config)]
        return [(folder, seed) for folder in folders for seed in grid_seeds(config)]
    paired = stage == "verdict"
    policies = paired_methods(config.methods) if paired else compared_policies(config.methods, config.discover.form)
    return [(policy, seed) for policy in policies for seed in config.seeds]


def change_settings(config: RunConfig, changes: Mapping[str, AxisValue]) -> RunConfig:
    """The run with other settings below `discover` and `finetune`, by dotted name.

    Raises:
        ValidationError: one is unknown or out of bounds.
    """
    values: dict[str, Any] = dict(config)
    for part in {name.partition(".")[0] for name in changes}:
        values[part] = values[part].model_dump()
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = values
        for part in groups:
            if not isinstance(group.get(part), dict):
                group[part] = {}
            group = group[part]
        group[last] = value
    return RunConfig.model_validate(values)


def _apply_axes(config: RunConfig, axes: Mapping[str, AxisValue]) -> tuple[dict[str, AxisValue], RunConfig]:
    """The changes that values of the axes mean, and the run with them."""
    changes, here = dict(axes), change_settings(config, axes)
    finds = here.discover.form == "coded" and here.discover.clustering == "density"
    if "discover.num_modes" in axes and finds and "discover.clustering" not in axes:
        changes["discover.clustering"] = "kmeans"  # density clustering would find K by itself
        here = change_settings(config, changes)
    return changes, here


def _keep_discovered(config: RunConfig, changes: Mapping[str, AxisValue]) -> dict[str, AxisValue]:
    """The changes that discovery depends on."""
    read = flatten(stage_slice(config, "discover"))
    return {name: value for name, value in changes.items() if name in read}


def _name_cell(config: RunConfig, axes: Mapping[str, AxisValue]) -> str:
    labels = label_axes(config.grid.axes)
    return ",".join(f"{labels[name]}={format_axis_value(value)}" for name, value in axes.items())


def label_axes(axes: Iterable[str]) -> dict[str, str]:
    """Short names of settings: the last part of the dotted name, or all of it where two settings share that part."""
    short = {name: name.rpartition(".")[2] for name in axes}
    uses = Counter(short.values())
    return {name: part if uses[part] == 1 else name for name, part in short.items()}
