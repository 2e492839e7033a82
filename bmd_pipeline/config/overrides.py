"""Runs that differ from a configured one by a few settings: base policies, λ, K."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bmd_pipeline.config.schema import RunConfig, uses_modes
from bmd_pipeline.errors import ConfigError, suggest

# ---- Base policies of their own: the name `<Task>-base<k>` is the task with root seed k ----
#
# Fine-tuning seeds share one base policy, so they say nothing about another one. Under such a name a task has
# demonstrations, a policy, modes and results of its own, and everything that can be made for a task can be made for it.

_NAME = re.compile(r"(?P<task>(?:(?!-base\d).)+)-base(?P<seed>0|[1-9]\d*)")


def base_name(task: str, seed: int) -> str:
    """Name of the task with this root seed."""
    return f"{task}-base{seed}"


def split_base(name: str) -> tuple[str, int | None]:
    """The task and the root seed of such a name; of another one, itself and None."""
    found = _NAME.fullmatch(name)
    return (found["task"], int(found["seed"])) if found else (name, None)


def configure_base(config: RunConfig, seed: int) -> RunConfig:
    """The run under such a name, as `load_config` makes it."""
    task = config.task
    changes = {"name": base_name(task.name, seed), "extends": task.extends or task.name}
    return config.model_copy(update={"task": task.model_copy(update=changes), "seed": seed})


# ---- The points of the λ sweep: their names, and a run's settings at each of them ----


@dataclass(frozen=True)
class SweepPoint:
    """One value or controller of λ.

    Attributes:
        controller: who decides λ.
        weight: λ, or None where the controller decides.
    """

    controller: str
    weight: float | None

    @property
    def name(self) -> str:
        """Name of its folder: "weight-0.1", "occupancy"."""
        return self.controller if self.weight is None else f"weight-{self.weight!r}".removesuffix(".0")

    def settings(self) -> dict[str, Any]:
        """What it changes in `finetune.regulariser`."""
        weight = {} if self.weight is None else {"mi_weight": self.weight}
        return {"controller": self.controller, **weight}

    def assignments(self) -> list[str]:
        """The same as options of `bmd-pipeline`: `--set name=value`."""
        return [
            part
            for name, value in self.settings().items()
            for part in ("--set", f"finetune.regulariser.{name}={value}")
        ]


UNGUARDED = {"min_obeyed_share": 0.0}
"""What the sweep changes in `finetune.selection`: success alone decides which iteration is kept. By default an early
one, whose codes still tell, would be kept where a small λ lets the modes go, and λ would look as if it held them."""


def list_points(config: RunConfig) -> list[SweepPoint]:
    """The points of a run's sweep: constants by weight, then controllers."""
    constants = [SweepPoint("constant", weight) for weight in config.sweep.weights]
    return constants + [SweepPoint(controller, None) for controller in config.sweep.controllers]


def find_point(config: RunConfig, name: str) -> SweepPoint:
    """The point of this name.

    Raises:
        ConfigError: the sweep has none; suggests the nearest.
    """
    points = {point.name: point for point in list_points(config)}
    if name not in points:
        raise ConfigError(f"sweep.weights and sweep.controllers name no point {name!r}; {suggest(name, points)}")
    return points[name]


def configure_swept(config: RunConfig, point: SweepPoint) -> RunConfig:
    """The run at a point of the sweep."""
    selection = config.finetune.selection.model_copy(update=UNGUARDED)
    finetune = config.finetune.model_copy(update={"selection": selection})
    return configure_point(config.model_copy(update={"finetune": finetune}), point)


def swept_assignments(point: SweepPoint) -> list[str]:
    """The same as options of `bmd-pipeline`."""
    extra = [part for name, value in UNGUARDED.items() for part in ("--set", f"finetune.selection.{name}={value}")]
    return point.assignments() + extra


def configure_point(config: RunConfig, point: SweepPoint) -> RunConfig:
    """The run at a point: only the regulariser differs, so that all earlier stages are shared."""
    values = config.finetune.regulariser.model_dump() | point.settings()
    regulariser = type(config.finetune.regulariser).model_validate(values)
    finetune = config.finetune.model_copy(update={"regulariser": regulariser})
    return config.model_copy(update={"finetune": finetune})


# ---- The cells of a grid of runs: where they are, and a run's settings in each of them ----


@dataclass(frozen=True)
class GridCell:
    """One method with one K and one λ.

    Attributes:
        method: fine-tuning method.
        num_modes: K; None for a method without codes.
        point: λ; None for a method without codes.
        is_own: whether K and λ are the run's own, so that results/<Task>/<method> is this cell.
        codes: what K changes in the run, by dotted name.
    """

    method: str
    num_modes: int | None
    point: SweepPoint | None
    is_own: bool
    codes: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Folder of its seeds below results/<Task>."""
        if self.is_own or self.point is None:
            return self.method
        return f"grid/{self.key}"

    @property
    def key(self) -> str:
        """Its name: "dsrl", "dsrl-bmd/k8/weight-0.5"."""
        return self.method if self.point is None else f"{self.method}/k{self.num_modes}/{self.point.name}"

    def assignments(self) -> list[str]:
        """What it changes, as options of `bmd-pipeline`: `--set name=value`."""
        return assign_codes(self.codes) + (self.point.assignments() if self.point else [])


def list_cells(config: RunConfig) -> list[GridCell]:
    """The cells of a run's grid, by method, K and λ; a method without codes is one cell."""
    cells = []
    own_codes, own_point = config.discover.num_modes, _own_point(config)
    points = [SweepPoint("constant", weight) for weight in config.grid.weights] or [own_point]
    for method in config.methods:
        if not uses_modes(method):
            cells.append(GridCell(method, None, None, is_own=True))
            continue
        for codes in config.grid.num_modes or (own_codes,):
            changes = change_codes(config, codes)
            own = changes == {"num_modes": own_codes}
            cells += [GridCell(method, codes, point, own and point == own_point, changes) for point in points]
    return cells


def change_codes(config: RunConfig, num_modes: int) -> dict[str, int | str]:
    """What discovery with one K of the grid is told, by name.

    A run may find out K by itself; a grid over K says what it is.
    """
    finds = config.discover.form == "coded" and config.discover.clustering == "density"
    return {"num_modes": num_modes} | ({"clustering": "kmeans"} if finds and config.grid.num_modes else {})


def assign_codes(changes: Mapping[str, int | str]) -> list[str]:
    """The same as options of `bmd-pipeline`."""
    return [word for name, value in changes.items() for word in ("--set", f"discover.{name}={value}")]


def find_cell(config: RunConfig, key: str) -> GridCell:
    """The cell of this name.

    Raises:
        ConfigError: the grid has none; suggests the nearest.
    """
    cells = {cell.key: cell for cell in list_cells(config)}
    if key in cells:
        return cells[key]
    raise ConfigError(f"methods, grid.num_modes and grid.weights name no cell {key!r}; {suggest(key, cells)}")


def configure_cell(config: RunConfig, cell: GridCell) -> RunConfig:
    """The run in a cell: demonstrations and policy are shared, and modes among cells of one K."""
    if cell.num_modes:
        config = configure_codes(config, cell.num_modes)
    return configure_point(config, cell.point) if cell.point else config


def configure_codes(config: RunConfig, num_modes: int) -> RunConfig:
    """The run with another K."""
    changed = config.discover.model_copy(update=change_codes(config, num_modes))
    return config.model_copy(update={"discover": changed})


def modes_folder(config: RunConfig, num_modes: int) -> str:
    """Folder of the modes of one K below results/<Task>; the run's own are where its methods look for them."""
    own = change_codes(config, num_modes) == {"num_modes": config.discover.num_modes}
    return "modes" if own else f"grid/modes/k{num_modes}"


def _own_point(config: RunConfig) -> SweepPoint:
    regulariser = config.finetune.regulariser
    constant = regulariser.controller == "constant"
    return SweepPoint(regulariser.controller, regulariser.mi_weight if constant else None)
