"""The cells of a grid: which there are, where, and what they change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.load import describe_error, load_config, merge_layers, parse_assignment
from bmd_pipeline.config.overrides import label_axes, list_cells, list_discoveries
from bmd_pipeline.config.schema import RunConfig, Untyped, grid_methods, grid_seeds
from bmd_pipeline.errors import ConfigError

WEIGHT, CODES = "finetune.regulariser.mi_weight", "discover.num_modes"
STEERING = "discover.steering.max_noise"


def make_config(axes: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "task": {"name": "GaussianMixture"},
        "methods": ("dsrl", "dsrl-bmd"),
        "discover": {"num_modes": 8, "clustering": "kmeans"},
        "finetune": {"regulariser": {"mi_weight": 0.5}},
        "grid": {"axes": {CODES: (4, 8), WEIGHT: (0.0, 0.5)} if axes is None else axes},
    }
    return RunConfig.model_validate(values | changes)


def test_cells_are_the_product_and_the_runs_own_is_its_own_results() -> None:
    cells = list_cells(make_config())
    assert [cell.folder("dsrl-bmd") for cell in cells] == [
        "grid/num_modes=4,mi_weight=0/dsrl-bmd",
        "grid/num_modes=4,mi_weight=0.5/dsrl-bmd",
        "grid/num_modes=8,mi_weight=0/dsrl-bmd",
        "dsrl-bmd",
    ]
    assert [cell.modes for cell in cells] == ["grid/num_modes=4/modes"] * 2 + ["modes"] * 2
    assert list(list_discoveries(cells)) == ["num_modes=4"]


def test_methods_with_codes_and_seeds_are_the_runs_unless_named() -> None:
    assert (grid_methods(make_config()), grid_seeds(make_config())) == (("dsrl-bmd",), (0, 1, 2))
    named = make_config(grid={"axes": {"finetune.iterations": (1, 2)}, "methods": ("dppo",), "seeds": (7,)})
    assert (grid_methods(named), grid_seeds(named)) == (("dppo",), (7,))


def test_a_cell_changes_its_axes_and_nothing_else() -> None:
    config = make_config({CODES: (4, 8), WEIGHT: (0.0, 0.00001), "finetune.balance_codes": (False,)})
    for cell in list_cells(config):
        for stage in ("collect", "pretrain", "evaluate"):
            assert stage_hash(cell.config, stage) == stage_hash(config, stage)
        same_codes = stage_hash(cell.config, "discover") == stage_hash(config, "discover")
        assert same_codes == (cell.modes == "modes")  # λ never repeats discovery
        told = ["discover.clustering=kmeans", *cell.assignments()]
        said = merge_layers([parse_assignment(text) for text in told])
        shared = {name: getattr(config, name) for name in ("task", "methods", "grid")}
        assert RunConfig.model_validate(said | shared) == cell.config


def test_modes_of_a_cell_are_those_of_its_discovery_alone() -> None:
    axes = {CODES: (4,), WEIGHT: (0.0, 1.0), "finetune.ppo.gamma": (0.9,)}
    (coded,) = list_discoveries(list_cells(make_config(axes))).values()
    assert coded.changes == {CODES: 4}
    config = make_config(axes, discover={"form": "published", "num_modes": 8})
    cells = list_cells(config)
    (discovery,) = list_discoveries(cells).values()
    assert discovery.changes == {CODES: 4, "finetune.ppo.gamma": 0.9}  # the published form's discovery uses PPO too
    for cell in cells:
        assert cell.discovery == discovery.name == "num_modes=4,gamma=0.9"
        assert stage_hash(discovery.config, "discover") == stage_hash(cell.config, "discover")


def test_an_axis_of_codes_says_how_many_where_the_run_finds_out() -> None:
    config = make_config(discover={"num_modes": 8})
    assert not any(cell.is_own for cell in list_cells(config))
    cell = list_cells(config)[-1]
    assert (cell.config.discover.num_modes, cell.config.discover.clustering) == (8, "kmeans")
    assert (cell.changes["discover.clustering"], cell.modes) == ("kmeans", "grid/num_modes=8/modes")
    # an axis of its own decides, and λ alone is crossed with what the run finds
    both = make_config({CODES: (8,), "discover.clustering": ("density", "kmeans")}, discover={"num_modes": 8})
    assert [cell.config.discover.clustering for cell in list_cells(both)] == ["density", "kmeans"]
    alone = make_config({WEIGHT: (0.0, 0.5)}, discover={"num_modes": 8})
    assert [cell.folder("dsrl-bmd") for cell in list_cells(alone)] == ["grid/mi_weight=0/dsrl-bmd", "dsrl-bmd"]
    assert all(cell.config.discover.clustering == "density" for cell in list_cells(alone))


def test_plain_dsrl_may_vary_the_shape_of_its_steering_policy() -> None:
    cells = list_cells(make_config(grid={"axes": {STEERING: (1.0, 2.0)}, "methods": ("dsrl",)}))
    assert [cell.modes for cell in cells] == ["modes", "modes"]  # the coded form's discovery steers nothing


def test_settings_of_one_last_name_are_told_apart() -> None:
    names = ["discover.num_envs", "finetune.num_envs", WEIGHT]
    assert list(label_axes(names).values()) == ["discover.num_envs", "finetune.num_envs", "mi_weight"]


def test_axes_may_be_given_as_groups() -> None:
    said = make_config({"finetune": {"regulariser": {"mi_weight": [0, 1]}}, CODES: [4]})
    assert said.grid.axes == {WEIGHT: (0, 1), CODES: (4,)}


def test_numbers_given_as_text_are_numbers() -> None:
    axes = {WEIGHT: ["0", "0.1", "1e-3"], "discover.clustering": ["kmeans"], "finetune.x": ["true"]}
    said = make_config({name: list(map(Untyped, texts)) for name, texts in axes.items()})
    assert list(said.grid.axes.values()) == [(0, 0.1, 0.001), ("kmeans",), (True,)]
    assert make_config(axes).grid.axes[WEIGHT] == ("0", "0.1", "1e-3")  # in quotes in a file: text


def test_a_grid_without_axes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"grid\.axes is empty"):
        list_cells(make_config({}))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"axes": {WEIGHT: ()}}, r"grid\.axes\.finetune\.regulariser\.mi_weight must have at least 1 entry"),
        ({"axes": {WEIGHT: (1, 1.0)}}, r"grid\.axes must not repeat a value, got \[1, 1\.0\] for finetune"),
        ({"axes": {"evaluate.tau": (0.5,)}}, r"grid\.axes must be settings below discover or finetune, got 'evaluate"),
        (
            {"axes": {"discover.clustering": ("a/b",)}},
            r"values that can name a folder, got 'a/b' for discover\.clustering",
        ),
        ({"axes": {CODES: range(2, 60), WEIGHT: range(60)}}, r"grid\.axes must make at most 1000 cells, got 3480"),
        ({"axes": {CODES: (4,)}, "methods": ("dsrl",)}, r"grid\.methods must use codes with an axis discover\.num_mo"),
        ({"axes": {"finetune.balance_codes": (True,)}, "methods": ("dppo",)}, r"finetune\.balance_codes, got dppo"),
        ({"axes": {STEERING: (1.0,)}, "methods": ("dsrl", "dppo")}, r"discover\.steering\.max_noise, got dppo"),
        ({"axes": {"finetune.obedience": (0.9,)}, "methods": ("dppo",)}, r"an axis finetune\.obedience, got dppo"),
        ({"methods": ("sac",)}, r"grid\.methods\[0\]: unknown method 'sac'"),
        ({"seeds": (0, 0)}, r"grid\.seeds must not repeat"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(grid: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make_config(grid=grid)
    assert re.search(message, describe_error(caught.value, RunConfig)[1])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {WEIGHT: [0, -1]},
            rf"^grid\.axes\.{WEIGHT}: not -1: {WEIGHT} must be >= 0\.0, got -1 \(--configfile or --config\)",
        ),
        ({"finetune.iteration": [1]}, r"not 1: unknown setting finetune\.iteration; did you mean 'iterations'"),
        ({"finetune.ppo": [1]}, r"^grid\.axes\.finetune\.ppo: not 1: finetune\.ppo must be a group of settings, got 1"),
        ({CODES: [8], "finetune.num_envs": [4]}, r"^grid\.axes: its values don't go together: discover\.num_modes "),
        ({"finetune.ppo.minibatch_size": [10**6]}, r"^finetune\.ppo\.minibatch_size must be <= "),
    ],
)
def test_values_are_validated_with_the_whole_run(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("GaussianMixture", preset="smoke", overrides={"grid": {"axes": axes}})
