"""The cells of a grid of runs: where they are, and a run's settings in each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bmd_pipeline.config.messages import suggest
from bmd_pipeline.config.methods import uses_modes
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.config.sweep_points import SweepPoint, configure_point
from bmd_pipeline.errors import ConfigError


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
