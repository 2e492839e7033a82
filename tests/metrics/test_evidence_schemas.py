"""The published schemas of compare.json, verdict.json, grid.json, pool.json and validation.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from bmd_pipeline.metrics.schemas import DOCUMENTS, Interval, describe_schema

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_published_schemas_are_in_step(name: str) -> None:
    text = (DOCS / f"{name}.schema.json").read_text()
    assert text == describe_schema(name), "run: python -m bmd_pipeline.metrics.schemas docs"


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "eval"])
def test_every_field_is_described_and_no_other_allowed(name: str) -> None:
    document = json.loads(describe_schema(name))
    for part, block in {"": document, **document["$defs"]}.items():
        assert block["additionalProperties"] is False, part
        if part not in ("ModeRow", "Provenance", "InputFile"):
            assert set(block["required"]) == set(block["properties"]) - {"sha256", "stage"}, part
            assert all("description" in field for field in block["properties"].values()), part


def test_intervals_are_ordered() -> None:
    with pytest.raises(ValidationError, match="low <= value <= high"):
        Interval(value=0.5, low=0.6, high=0.7)
