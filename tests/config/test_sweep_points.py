"""The points of the λ sweep, and what they change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.load import describe, merge_layers, parse_assignment
from bmd_pipeline.config.overrides import configure_point, configure_swept, find_point, list_points, swept_assignments
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import ConfigError


def make_config(**sweep: Any) -> RunConfig:
    values = {"weights": (0.0, 0.03, 1.0, 10.0), "controllers": ("occupancy",)} | sweep
    return RunConfig.model_validate({"task": {"name": "GaussianMixture"}, "sweep": values})


def test_points_are_named_by_weight_and_controller() -> None:
    names = [point.name for point in list_points(make_config())]
    assert names == ["weight-0", "weight-0.03", "weight-1", "weight-10", "occupancy"]
    assert find_point(make_config(), "weight-0.03").weight == 0.03
    assert find_point(make_config(), "occupancy").weight is None
    with pytest.raises(ConfigError, match=r"name no point 'weight-0\.3'; did you mean 'weight-0\.03'"):
        find_point(make_config(), "weight-0.3")


@pytest.mark.parametrize("name", ["weight-0", "weight-10", "occupancy"])
def test_a_point_changes_the_regulariser_and_nothing_else(name: str) -> None:
    config = make_config()
    here = configure_point(config, find_point(config, name))
    assert here.finetune.regulariser != config.finetune.regulariser
    restored = here.finetune.model_copy(update={"regulariser": config.finetune.regulariser})
    assert here.model_copy(update={"finetune": restored}) == config
    for stage in ("collect", "pretrain", "discover", "evaluate"):
        assert stage_hash(here, stage) == stage_hash(config, stage)
    assert stage_hash(here, "finetune", "dsrl-bmd") != stage_hash(config, "finetune", "dsrl-bmd")
    assert stage_hash(here, "finetune", "dsrl") == stage_hash(config, "finetune", "dsrl")


def test_a_controller_starts_from_the_configured_weight() -> None:
    config = make_config()
    regulariser = configure_point(config, find_point(config, "occupancy")).finetune.regulariser
    assert (regulariser.controller, regulariser.mi_weight) == ("occupancy", config.finetune.regulariser.mi_weight)


def test_options_say_the_same_as_the_configured_point() -> None:
    config = make_config(weights=(0.0, 0.00001, 0.5))
    for point in list_points(config):
        options = swept_assignments(point)
        assert options[::2] == ["--set"] * (len(options) // 2)
        said = RunConfig.model_validate(
            merge_layers([parse_assignment(text) for text in options[1::2]])
            | {"task": {"name": "GaussianMixture"}, "sweep": config.sweep}
        )
        expected = stage_slice(configure_swept(config, point), "finetune", "dsrl-bmd")
        assert stage_slice(said, "finetune", "dsrl-bmd") == expected


def test_in_the_sweep_success_alone_decides_which_iteration_is_kept() -> None:
    """Else an early one would be kept at a small λ, and the sweep would credit λ with its modes."""
    config = make_config(weights=(0.0, 0.5))
    for point in list_points(config):
        assert configure_swept(config, point).finetune.selection.min_obeyed_share == 0.0
        assert configure_point(config, point).finetune.selection == config.finetune.selection


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"method": "dsrl"}, r"sweep\.method must be 'dppo-bmd', 'res-bmd' or 'dsrl-bmd', got 'dsrl'"),
        ({"weights": (0.1, 0.1)}, "weights must rise"),
        ({"weights": (1.0, 0.1)}, "weights must rise"),
        ({"weights": (-1.0, 0.1)}, r"sweep\.weights\[0\] must be >= 0\.0, got -1\.0"),
        ({"weights": (0.1, 1001.0)}, r"sweep\.weights\[1\] must be <= 1000\.0, got 1001\.0"),
        ({"controllers": ("occupancy", "occupancy")}, "controllers must not repeat"),
        ({"seeds": (0, 0)}, "seeds must not repeat"),
        ({"seeds": (-1,)}, r"sweep\.seeds\[0\] must be >= 0, got -1"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make_config(**sweep)
    assert re.search(message, describe(caught.value, RunConfig)[1])
