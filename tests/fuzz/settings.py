"""Settings that are allowed: small ones, at the edges of their bounds."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from bmd_pipeline.config.load import find_model
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.tasks.registry import env_model

from ..faults.lab import TASK

LARGEST = {"pretrain.iterations": 20, "collect.num_episodes": 16, "seed": 1000}
FIXED = ("task", "execution", "methods", "seeds", "grid", "collect.behaviours", "discover.inference.features")
"""What is left alone: names, and what is not part of the chain."""


def list_settings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings and groups."""
    for name in model.model_fields:
        yield f"{prefix}{name}"
        group = find_model(model, (name,))
        if group is not None:
            yield from list_settings(group, f"{prefix}{name}.")


def draw_settings(rng: random.Random) -> list[str]:
    """Assignments of a few settings, each within its own bounds; together they may contradict each other."""
    schema = RunConfig.model_json_schema()
    leaves = dict(_leaves(schema, schema["$defs"], ""))
    env = env_model(TASK).model_json_schema()
    leaves |= dict(_leaves(env, env["$defs"], "task.env."))
    share = rng.choice((0.02, 0.1, 0.4))
    return [
        f"{name}={json.dumps(_draw(rng, part, LARGEST.get(name, 12)))}"
        for name, part in leaves.items()
        if rng.random() < share and (name.startswith("task.env.") or not name.startswith(FIXED))
    ]


def _leaves(schema: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema["properties"].items():
        if "$ref" in part:
            yield from _leaves(definitions[part["$ref"].rpartition("/")[2]], definitions, f"{prefix}{name}.")
        elif name != "env":
            yield f"{prefix}{name}", part


def _draw(rng: random.Random, schema: dict[str, Any], largest: int) -> Any:
    """A value within bounds: the lower one as often as any other."""
    if "anyOf" in schema:
        return _draw(rng, rng.choice(schema["anyOf"]), largest)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "array":
        if schema["items"].get("maximum") == 16_384:  # layers of a network
            return [rng.choice((1, 2, 8)) for _ in range(rng.choice((1, 2, 8)))]
        count = rng.randrange(schema.get("minItems", 0), min(schema.get("maxItems", 3), 3) + 1)
        return tuple(sorted({_draw(rng, schema["items"], largest) for _ in range(count)}, reverse=True))
    if kind == "integer":
        low = schema["minimum"] if "minimum" in schema else schema["exclusiveMinimum"] + 1
        high = schema["maximum"] if "maximum" in schema else schema["exclusiveMaximum"] - 1
        return rng.choice((low, rng.randint(low, min(high, max(low, largest)))))
    if kind == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1e-6)
        high = schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1e-6)
        return rng.choice((low, high, rng.uniform(low, high), rng.uniform(low, min(high, low + 1.0))))
    if kind == "boolean":
        return rng.random() < 0.5
    return None
