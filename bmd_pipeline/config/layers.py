"""Layers of settings: merging them, and finding which one a value came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bmd_pipeline.config.documents import parse_yaml
from bmd_pipeline.errors import ConfigError

Location = tuple[str | int, ...]

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        name: the place, as messages call it ("config/tasks/PushT.yaml").
        values: nested settings.
    """

    name: str
    values: Mapping[str, Any]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lays settings over others: groups merge key by key, everything else is replaced, lists too.

    An empty group in YAML reads as None and says nothing about the group below it.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and value is None:
            continue
        if isinstance(value, Mapping):
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merges layers, later ones on top."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = merge(merged, layer.values)
    return merged


def find_origin(layers: Sequence[Layer], location: Location) -> str | None:
    """The layer that decided the value at a location, or at the nearest group above it."""
    for depth in range(len(location), 0, -1):
        for layer in reversed(layers):
            if _holds(layer.values, location[:depth]):
                return layer.name
    return None


def _holds(values: Any, location: Location) -> bool:
    for key in location:
        if isinstance(values, Mapping) and key in values:
            values = values[key]
        elif isinstance(values, Sequence) and not isinstance(values, str) and isinstance(key, int):
            if key >= len(values):
                return False
            values = values[key]
        else:
            return False
    return True


def parse_assignment(text: str) -> Layer:
    """Turns `a.b=c` into a layer; the value is YAML.

    Raises:
        ConfigError: there is no `=`, the key is malformed, or the value is not YAML.
    """
    name = f"--set {text}"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"--set wants name.name=value, got {text!r}")
    values: Any = parse_yaml(value, name)
    for part in reversed(key.split(".")):
        values = {part: values}
    return Layer(name, values)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names: `{"a": {"b": 1}}` gives `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
