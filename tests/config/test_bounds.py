"""Every setting has a bound and a reason."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.tasks.registry import list_entries

MODELS: dict[str, type[BaseModel]] = {"settings": RunConfig}
MODELS |= {entry.name: importlib.import_module(f"{entry.package}.options").Options for entry in list_entries()}


def list_leaves(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of a plain value below one, with its dotted path."""
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "anyOf" in schema:  # a value or nothing
        for part in schema["anyOf"]:
            yield from list_leaves(part, definitions, path)
    elif "properties" in schema:
        for name, part in schema["properties"].items():
            yield from list_leaves(part, definitions, f"{path}.{name}")
    elif schema.get("type") == "array":
        yield path, schema
        for part in (*schema.get("prefixItems", ()), *([schema["items"]] if "items" in schema else [])):
            yield from list_leaves(part, definitions, f"{path}[]")
    else:
        yield path, schema


def is_bounded(schema: dict[str, Any]) -> bool:
    """Whether only so many, so large or so long values get in."""
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return bool({"minimum", "exclusiveMinimum"} & set(schema)) and bool(
            {"maximum", "exclusiveMaximum"} & set(schema)
        )
    if kind == "string":
        return bool({"enum", "const", "pattern", "maxLength"} & set(schema))
    return kind in ("boolean", "null") or "const" in schema or "enum" in schema


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_is_bounded(name: str) -> None:
    schema = MODELS[name].model_json_schema()
    leaves = dict(list_leaves(schema, schema.get("$defs", {}), ""))
    known = {
        ".task.env",  # the task's own settings, which are bounded themselves
        ".methods[]",  # names of a fixed list, answered with the nearest
        ".grid.methods[]",
        ".grid.axes",  # values of other settings, which are bounded themselves
        ".arguments",  # of gymnasium.make, which refuses what it doesn't know
    }
    lists = {path: part for path, part in leaves.items() if part.get("type") == "array"}
    # What may stand in a list only once, and is one of a few, needs no other limit.
    few = {path for path, part in lists.items() if {"enum", "const"} & part.get("items", {}).keys()}
    endless = {path for path, part in lists.items() if "maxItems" not in part and path not in few}
    loose = {path for path, part in leaves.items() if path not in lists and not is_bounded(part)}
    assert (loose - known, endless) == (set(), set())
    assert len(leaves) >= (120 if name == "settings" else 2)


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_says_what_it_is(name: str) -> None:
    schema = MODELS[name].model_json_schema()
    for model, part in ((name, schema), *schema.get("$defs", {}).items()):
        for field, described in part["properties"].items():
            reason = described.get("description") or schema["$defs"][described["$ref"].split("/")[-1]]["description"]
            assert len(reason) >= 2, f"{model}.{field} has no reason"
