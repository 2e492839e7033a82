"""Layers of settings: merging them, and finding which one a value came from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.config.documents import Location, find_line, parse_yaml
from bmd_pipeline.errors import ConfigError

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        name: the place, as messages call it ("config/tasks/PushT.yaml").
        values: nested settings.
        path: the file they were read from, if there is one.
        section: where in the file they stand.
    """

    name: str
    values: Mapping[str, Any]
    path: Path | None = None
    section: Location = ()


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
    """The layer that decided the value at a location, or at the nearest group above it: its file and line, or name."""
    for depth in range(len(location), 0, -1):
        for layer in reversed(layers):
            if _holds(layer.values, location[:depth]):
                line = find_line(layer.path, (*layer.section, *location[:depth])) if layer.path else None
                return layer.name if line is None else f"{layer.path}:{line}"
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
    name = f"--set {shorten(text)}"
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"--set wants name.name=value, got {shorten(text)!r}")
    values: Any = parse_yaml(value, name)
    for part in reversed(key.split(".")):
        values = {part: values}
    return Layer(name, values)


def shorten(text: str, length: int = 80) -> str:
    """A text that fits into a message of one line."""
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names: `{"a": {"b": 1}}` gives `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
