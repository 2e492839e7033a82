"""Whatever is said about the settings: one line refuses it, or they say the same when they are read back."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmd_pipeline.config.hashing import config_hash
from bmd_pipeline.config.load import list_paths, load_config, parse_yaml
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import BMDError

CONFIG_DIR = Path(__file__).parents[2] / "config"
NAMES = sorted({part for path in list_paths(RunConfig) for part in path.split(".")})
calm = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, 2, -1, 2**31, 0.5, 1.0]))
VALUES = st.recursive(
    st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=8), st.sampled_from(["cpu", "dsrl", "held", "mean"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=8,
)
PATHS = st.sampled_from(sorted(list_paths(RunConfig)))


def refusal(function: Callable[[], object]) -> str | None:
    """What the function was refused with, in one line, or None."""
    try:
        function()
    except BMDError as error:
        text = str(error)
    else:
        return None
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    return text


def require_sense(**said: Any) -> None:
    """The property."""
    load = functools.partial(load_config, "GaussianMixture", preset="smoke", config_dir=CONFIG_DIR)
    if refusal(lambda: load(**said)):
        return
    config = load(**said)
    shown = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True))
    again = load(overrides=shown)
    assert config_hash(again) == config_hash(config)
    assert again == config


@calm
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_any_settings_file(overrides: dict[str, Any]) -> None:
    require_sense(overrides=overrides)


@calm
@given(st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=3))
def test_any_value_of_any_setting(said: list[tuple[str, Any]]) -> None:
    require_sense(assignments=[f"{path}={json.dumps(value)}" for path, value in said])


@calm
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_assignment(name: str, value: str) -> None:
    require_sense(assignments=[f"{name}={value}", f"seed={value}"])


@calm
@given(st.text(alphabet="ab:{}[],&*!|>-? \n\t'\"#%@`0.", max_size=60))
def test_any_text_is_yaml_or_one_line(text: str) -> None:
    assert (refusal(lambda: parse_yaml(text, "mine.yaml")) or "mine.yaml:").startswith("mine.yaml:")
