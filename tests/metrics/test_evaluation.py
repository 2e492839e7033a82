"""The format of eval.json."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from bmd_pipeline.metrics.schemas import Estimate, describe_schema


def test_schema_describes_and_requires_every_field() -> None:
    schema = json.loads(describe_schema("eval"))
    assert {"schema_version", "task", "config_hash", "policies", "provenance"} <= set(schema["required"])
    policy = schema["$defs"]["PolicyBlock"]
    metrics = {
        "success_rate",
        "mode_weighted_success",
        "present",
        "solved",
        "obeyed",
        "obeyed_worst",
        "mode_entropy",
        "mutual_information",
        "episode_return",
        "per_mode",
        "seeds",
    }
    assert metrics <= set(policy["required"])
    for name, definition in schema["$defs"].items():
        assert definition["additionalProperties"] is False, name


def test_estimates_are_ordered_and_finite() -> None:
    with pytest.raises(ValidationError, match="low <= mean <= high"):
        Estimate(mean=0.5, low=0.6, high=0.7, n=3)
    with pytest.raises(ValidationError, match="finite"):
        Estimate(mean=float("nan"), low=0.0, high=1.0, n=3)
