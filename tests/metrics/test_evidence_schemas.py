"""The published schemas of compare.json, verdict.json, sweep.json, grid.json, pool.json and validation.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from bmd_pipeline.metrics.schemas import (
    Interval,
    comparison_schema,
    grid_schema,
    pool_schema,
    sweep_schema,
    validation_schema,
    verdict_schema,
)

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = [
    ("compare", "comparison", comparison_schema),
    ("verdict", "verdict", verdict_schema),
    ("sweep", "sweep", sweep_schema),
    ("validation", "validation", validation_schema),
    ("grid", "grid", grid_schema),
    ("pool", "pool", pool_schema),
]


@pytest.mark.parametrize(("file", "module", "schema"), SCHEMAS)
def test_published_schemas_are_in_step(file: str, module: str, schema: Callable[[], str]) -> None:
    command = f"python -m bmd_pipeline.metrics.{module} > docs/{file}.schema.json"
    assert (DOCS / f"{file}.schema.json").read_text() == schema(), f"run: {command}"


@pytest.mark.parametrize(("file", "module", "schema"), SCHEMAS)
def test_every_field_is_described_and_no_other_allowed(file: str, module: str, schema: Callable[[], str]) -> None:
    document = json.loads(schema())
    for name, block in {"": document, **document["$defs"]}.items():
        assert block["additionalProperties"] is False, name
        if name not in ("ModeRow", "Provenance", "InputFile"):
            assert set(block["required"]) == set(block["properties"]), name
            assert all("description" in field for field in block["properties"].values()), name


def test_intervals_are_ordered() -> None:
    with pytest.raises(ValidationError, match="low <= value <= high"):
        Interval(value=0.5, low=0.6, high=0.7)
