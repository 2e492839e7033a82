"""The cells of a grid: which there are, where, and what they change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.load import merge_layers, parse_assignment
from bmd_pipeline.config.overrides import configure_cell, configure_codes, find_cell, list_cells, modes_folder
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError


def make_config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": "GaussianMixture"},
        "methods": ("dsrl", "dsrl-bmd"),
        "discover": {"num_modes": 8, "clustering": "kmeans"},
        "finetune": {"regulariser": {"mi_weight": 0.5}},
        "grid": {"weights": (0.0, 0.5), "num_modes": (4, 8)},
    }
    return RunConfig.model_validate(values | changes)


def test_plain_methods_and_the_runs_own_cell_are_its_own_results() -> None:
    assert [cell.folder for cell in list_cells(make_config())] == [
        "dsrl",
        "grid/dsrl-bmd/k4/weight-0",
        "grid/dsrl-bmd/k4/weight-0.5",
        "grid/dsrl-bmd/k8/weight-0",
        "dsrl-bmd",
    ]
    assert modes_folder(make_config(), 8) == "modes"
    assert modes_folder(make_config(), 4) == "grid/modes/k4"


def test_without_lists_the_grid_is_the_run() -> None:
    assert [cell.folder for cell in list_cells(make_config(grid={}))] == ["dsrl", "dsrl-bmd"]
    controlled = make_config(finetune={"regulariser": {"controller": "occupancy"}}, grid={"num_modes": (4,)})
    assert [cell.folder for cell in list_cells(controlled)] == ["dsrl", "grid/dsrl-bmd/k4/occupancy"]


@pytest.mark.parametrize("key", ["dsrl-bmd/k4/weight-0", "dsrl-bmd/k8/weight-0", "dsrl-bmd/k4/weight-0.5"])
def test_a_cell_changes_codes_and_weight_and_nothing_else(key: str) -> None:
    config = make_config()
    cell = find_cell(config, key)
    here = configure_cell(config, cell)
    assert here.discover.num_modes == cell.num_modes
    assert here.finetune.regulariser.mi_weight == (cell.point and cell.point.weight)
    for stage in ("collect", "pretrain", "evaluate"):
        assert stage_hash(here, stage) == stage_hash(config, stage)
    same_codes = stage_hash(here, "discover") == stage_hash(config, "discover")
    assert same_codes == (cell.num_modes == config.discover.num_modes)  # λ never repeats discovery
    told = ["discover.clustering=kmeans", *cell.assignments()[1::2]]
    said = merge_layers([parse_assignment(text) for text in told])
    shared = {name: getattr(config, name) for name in ("task", "methods", "grid")}
    assert RunConfig.model_validate(said | shared) == here


def test_a_grid_over_codes_says_how_many_where_the_run_finds_out() -> None:
    config = make_config(discover={"num_modes": 8})
    assert [cell.is_own for cell in list_cells(config)] == [True, False, False, False, False]
    cell = find_cell(config, "dsrl-bmd/k8/weight-0.5")
    here = configure_cell(config, cell)
    assert (here.discover.num_modes, here.discover.clustering) == (8, "kmeans")
    assert cell.assignments()[:4] == ["--set", "discover.num_modes=8", "--set", "discover.clustering=kmeans"]
    assert modes_folder(config, 8) == "grid/modes/k8"
    # λ alone is crossed with what the run finds
    config = make_config(discover={"num_modes": 8}, grid={"weights": (0.0, 0.5)})
    assert [cell.folder for cell in list_cells(config)] == ["dsrl", "grid/dsrl-bmd/k8/weight-0", "dsrl-bmd"]
    assert configure_cell(config, list_cells(config)[1]).discover.clustering == "density"
    assert modes_folder(config, 8) == "modes"


def test_modes_of_a_cell_are_those_of_its_codes_alone() -> None:
    config = make_config()
    here = configure_cell(config, find_cell(config, "dsrl-bmd/k4/weight-0"))
    assert stage_hash(configure_codes(config, 4), "discover") == stage_hash(here, "discover")


def test_unknown_cells_and_impossible_lists_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"name no cell 'dsrl-bmd/k4/weight-5'; did you mean"):
        find_cell(make_config(), "dsrl-bmd/k4/weight-5")
    for grid, message in (
        ({"weights": (1.0, 0.5)}, r"weights must rise, got"),
        ({"num_modes": (1, 2)}, r"greater than or equal to 2"),
        ({"num_modes": (2, 999)}, r"grid.num_modes must be <= num_envs \(512\), got 999"),
    ):
        with pytest.raises(ValidationError, match=message):
            make_config(grid=grid)
