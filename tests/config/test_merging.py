"""Layers of settings: merging, origins, assignments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmd_pipeline.config.load import Layer, find_origin, merge_layers, merge_settings, parse_assignment
from bmd_pipeline.config.schema import flatten
from bmd_pipeline.errors import ConfigError

calm = settings(suppress_health_check=[HealthCheck.too_slow])  # others use this machine too

LEAVES = st.one_of(
    st.integers(), st.booleans(), st.sampled_from(["", "x", "text"]), st.lists(st.integers(), max_size=3)
)
# As in real settings, a name is either always a group or always a value. Empty groups: see below.
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "a": LEAVES,
        "b": LEAVES,
        "group": st.fixed_dictionaries(
            {}, optional={"c": LEAVES, "inner": st.fixed_dictionaries({"d": LEAVES})}
        ).filter(bool),
    },
)


@calm
@given(SETTINGS, SETTINGS, SETTINGS)
def test_merging_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merge_settings(merge_settings(a, b), c) == merge_settings(a, merge_settings(b, c))


@calm
@given(SETTINGS, SETTINGS)
def test_merging_takes_every_value_from_the_upper_layer_that_has_it(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    assert flatten(merge_settings(below, above)) == {**flatten(below), **flatten(above)}


@calm
@given(SETTINGS)
def test_merging_with_itself_or_nothing_changes_nothing(values: dict[str, Any]) -> None:
    assert merge_settings(values, values) == merge_settings(values, {}) == merge_settings({}, values) == values


def test_merging_leaves_its_arguments_alone() -> None:
    below = {"group": {"x": 1}}
    merge_settings(below, {"group": {"y": 2}})
    assert below == {"group": {"x": 1}}


def test_lists_replace_blank_groups_say_nothing_and_empty_ones_empty() -> None:
    below = {"seeds": [0, 1, 2], "finetune": {"iterations": 5}, "grid": {"axes": {"x": [1]}, "seeds": [2]}}
    merged = merge_settings(below, {"seeds": [7], "finetune": None, "grid": {"axes": {}}})
    assert merged == {"seeds": [7], "finetune": {"iterations": 5}, "grid": {"axes": {}, "seeds": [2]}}


def test_later_layers_win_and_are_named_as_the_origin() -> None:
    layers = [
        Layer("low", {"a": {"b": 1, "c": 1}}),
        Layer("high", {"a": {"b": 2}, "list": [1, 2]}),
    ]
    assert merge_layers(layers) == {"a": {"b": 2, "c": 1}, "list": [1, 2]}
    assert find_origin(layers, ("a", "b")) == "high"
    assert find_origin(layers, ("a", "c")) == "low"
    assert find_origin(layers, ("list", 1)) == "high"
    assert find_origin(layers, ("a", "missing")) == "high"  # the group's topmost layer
    assert find_origin(layers, ("elsewhere",)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=3", {"seed": 3}),
        ("finetune.ppo.gamma=0.5", {"finetune": {"ppo": {"gamma": 0.5}}}),
        ("finetune.ppo.learning_rate=1e-3", {"finetune": {"ppo": {"learning_rate": 0.001}}}),
        ("seeds=[0, 1]", {"seeds": [0, 1]}),
        ("task.env.name=a=b", {"task": {"env": {"name": "a=b"}}}),
        ("execution={device: cpu}", {"execution": {"device": "cpu"}}),
    ],
)
def test_assignments_are_paths_with_yaml_values(text: str, expected: dict[str, Any]) -> None:
    assert parse_assignment(text).values == expected


@pytest.mark.parametrize("text", ["seed", "=3", "a b=3", "a..b=3", ".a=3", "a.=3", "1a=3"])
def test_malformed_assignments_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set wants name"):
        parse_assignment(text)
