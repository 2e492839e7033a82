"""What is wrong with a setting, in one line: `finetune.ppo.gamma must be <= 1.0, got 2.0`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bmd_pipeline.config.documents import Location
from bmd_pipeline.config.layers import shorten

_BOUNDS = {
    "greater_than": ("gt", ">"),
    "greater_than_equal": ("ge", ">="),
    "less_than": ("lt", "<"),
    "less_than_equal": ("le", "<="),
}
_KINDS = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "string": "must be text",
    "tuple": "must be a list",
    "list": "must be a list",
    "model": "must be a group of settings",
    "dict": "must be a group of settings",
}


def suggest(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all of them, as the tail of a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def join(location: Location) -> str:
    """A location as users write it: `finetune.ppo.gamma`, `seeds[1]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def find_model(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The group of settings at a location, or None if there is none."""
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def list_paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings below a model."""
    for name in model.model_fields:
        group = find_model(model, (name,))
        if group is None:
            yield f"{prefix}{name}"
        else:
            yield from list_paths(group, f"{prefix}{name}.")


def describe(error: ValidationError, model: type[BaseModel], prefix: Location = ()) -> tuple[Location, str]:
    """Location and one-line text of a validation error; unknown names come before wrong values.

    Args:
        error: what validation of `model` raised.
        model: the settings that were validated.
        prefix: where the model stands in the whole.
    """
    found = error.errors()
    places = {item["loc"][:depth] for item in found for depth in range(len(item["loc"]))}
    # A list whose entries are refused counts as too short as well: that says nothing new.
    details = [item for item in found if not (item["type"] == "too_short" and item["loc"] in places)]
    details.sort(key=lambda item: item["type"] != "extra_forbidden")
    first = details[0]
    location = first["loc"]
    if first["type"] == "extra_forbidden":
        text = _describe_unknown(location, model, prefix)
    else:
        text = _describe_value(first, model, prefix)
    if len(details) > 1:
        text += f" (and {len(details) - 1} more)"
    return prefix + location, text


def _describe_unknown(location: Location, model: type[BaseModel], prefix: Location) -> str:
    name = str(location[-1]) if location else ""
    elsewhere = [path for path in list_paths(model) if path.split(".")[-1] == name]
    group = find_model(model, location[:-1])
    known = group.model_fields if group else {}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = suggest(name, known)
    if elsewhere and not near:
        hint = f"did you mean {' or '.join(repr(join((*prefix, path))) for path in elsewhere[:2])}?"
    return f"unknown setting {join((*prefix, *location))}; {hint}"


def _describe_value(item: ErrorDetails, model: type[BaseModel], prefix: Location) -> str:
    location = item["loc"]
    path = join((*prefix, *location))
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return f"{path} must be given"
    if kind == "value_error":
        text = str(context.get("error", item["msg"]))
        group = find_model(model, location)
        named = group is not None and text.split(" ")[0].split(".")[0] in group.model_fields
        link = "." if named else " " if text.startswith("must ") else ": "
        return f"{path}{link}{text}" if path else text
    return f"{path} {_demand(kind, context, item['msg'])}, got {_show(item['input'])}"


def _demand(kind: str, context: dict[str, Any], fallback: str) -> str:
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return f"must be {sign} {context[name]}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind == "too_short":
        return f"must have at least {_count(context['min_length'])}"
    if kind == "too_long":
        return f"must have at most {_count(context['max_length'])}"
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}"
    fallback = fallback.replace("Input should", "must").replace("must be a valid", "must be a")
    return _KINDS.get(kind.split("_")[0], fallback)


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    return shorten(" ".join(repr(value).split()), 60)


def _count(n: int) -> str:
    return "1 entry" if n == 1 else f"{n} entries"
