"""Descriptions of settings are those that pydantic would have read itself."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, create_model

from bmd_pipeline.config import schema
from bmd_pipeline.config.documented import Documented, describe_fields
from bmd_pipeline.metrics import schemas


@pytest.mark.parametrize("model", [schema.FinetuneConfig, schema.PolicyConfig, schemas.Evaluation, schemas.CodeRow])
def test_a_field_means_what_stands_below_it(model: type[Documented]) -> None:
    by_pydantic = _read_by_pydantic(model)
    assert describe_fields(model) == by_pydantic
    shown = model.model_json_schema()["properties"]
    assert {name: row["description"] for name, row in shown.items() if "description" in row} == by_pydantic


def _read_by_pydantic(model: type[BaseModel]) -> dict[str, str]:
    from pydantic._internal._docs_extraction import extract_docstrings_from_cls

    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        found |= (
            extract_docstrings_from_cls(part, use_inspect=True) if part not in (object, BaseModel, Documented) else {}
        )
    return {name: text for name, text in found.items() if name in model.model_fields}


def test_a_group_within_keeps_what_its_field_means() -> None:
    class Inner(Documented):
        rate: float = 1.0
        """Per step."""

    class Outer(Inner):
        model_config = ConfigDict(extra="forbid")

        inner: Inner = Inner()
        """How it is trained."""
        plain: int = 0

    shown = Outer.model_json_schema()["properties"]
    assert describe_fields(Outer) == {"rate": "Per step.", "inner": "How it is trained."}
    assert (shown["inner"]["description"], "description" in shown["plain"]) == ("How it is trained.", False)


def test_a_class_without_source_means_what_its_parents_say() -> None:
    class Parent(Documented):
        rate: float = 1.0
        """Per step."""

    made = create_model("Made", __base__=Parent, count=(int, 0))
    assert describe_fields(made) == {"rate": "Per step."}
    assert set(made.model_json_schema()["properties"]) == {"rate", "count"}
