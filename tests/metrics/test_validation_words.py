"""What the validation of modes says, on made-up findings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bmd_pipeline.config.schema import ValidationConfig
from bmd_pipeline.metrics.mode_checks import Trajectories, Validator, describe_agreement, describe_validation
from bmd_pipeline.metrics.schemas import SeedValidation

MODES = ("left", "right", "round")
WAYS = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])


def play(way: np.ndarray, success: np.ndarray, rng: np.random.Generator) -> Trajectories:
    """Episodes that go one way each; codes round-robin."""
    time = np.linspace(0.25, 1.0, 4)[None, :, None]
    points = time * WAYS[way][:, None] + 0.2 * rng.normal(size=(len(way), 4, 2))
    return Trajectories(points, np.arange(len(way)) % 4, success, way)


def make_validator() -> Validator:
    return Validator(ValidationConfig(), MODES, 0.95, np.random.default_rng(0))


def say(ways: list[float], commanded: list[int], **outcome: Any) -> tuple[list[str], SeedValidation]:
    """Sentences about a base policy with these shares of ways, whose code k leads to way commanded[k]."""
    rng, n = np.random.default_rng(0), 240
    won = rng.random(n) < outcome.get("success", 0.9)
    draw = [play(rng.choice(3, size=n, p=ways), won, rng) for _ in range(2)]
    validator = make_validator()
    base = validator.describe_base(*draw)
    way = np.array(commanded)[np.arange(n) % 4]
    played, late = play(way, won, rng), play(np.zeros_like(way), won, rng)
    found = validator.describe_seed(3, 4, played, {"delay": late}, base)
    return describe_validation(base, [found], describe_agreement({0: way, 1: way}), power=0.9), found


def test_several_ways_redundant_codes_and_a_missing_mode() -> None:
    text, found = say([0.4, 0.3, 0.3], [0, 1, 1, 0])
    assert text[0].startswith("The base policy has more than one way to succeed")
    assert (
        "Seed 3: codes 0 and 3 lead to the same mode; codes 1 and 2 lead to the same mode; no code leads to round."
        in text
    )
    assert found.truth is not None
    assert found.truth.missing == ["round"]
    assert found.truth.purity == 1.0
    assert "discovery seeds agree with each other at NMI 1.00, ARI 1.00" in " ".join(text)


def test_equal_codes_are_not_told_apart_and_different_ones_are() -> None:
    _, found = say([0.4, 0.3, 0.3], [0, 1, 1, 0])
    assert found.separation is not None
    by_code = [code.recognised for code in found.codes]
    assert all(share is not None and 0.2 < share < 0.8 for share in by_code)  # either of two codes that do the same
    table = np.array(found.separation.confusion)
    assert table[0, 1] == table[0, 2] == table[1, 0] == 0


def test_a_disturbance_that_sends_all_one_way_is_seen() -> None:
    text, found = say([0.4, 0.3, 0.3], [0, 1, 2, 0])
    (late,) = found.disturbed
    assert found.separation is not None
    assert late.recognised is not None
    assert late.recognised.high < found.separation.recognised.low
    assert (found.present, late.present) == (3, 1)
    assert "with 3 modes present. With late actions: success" in text[-1]
    assert text[-1].endswith("1 mode present.")


def test_one_way_is_nothing_to_preserve_though_codes_differ() -> None:
    text, _ = say([1.0, 0.0, 0.0], [0, 1, 2, 0])
    assert "there is nothing to preserve" in text[0]
    assert "would have been found with probability 0.9" in text[0]
    assert "What differs between codes lies within the one way." in text[1]


@pytest.mark.parametrize("success", [0.0, 0.05])
def test_few_successes_say_nothing(success: float) -> None:
    text, found = say([0.4, 0.3, 0.3], [0, 1, 2, 0], success=success)
    assert "can't be told" in text[0]
    assert found.truth is None
    assert not any("true modes" in sentence for sentence in text)
