"""What pages and console say about made-up findings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bmd_pipeline.metrics.mode_checks import Trajectories, Validator
from bmd_pipeline.metrics.schemas import SeedValidation, Validation, Verdict, load_document
from bmd_pipeline.reporting import narrative
from bmd_pipeline.reporting.narrative import describe_validation
from tests.reporting.made_up import MadeUpRun

MODES = ("left", "right", "round")
WAYS = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])


def plain(text: str) -> str:
    """Without thin spaces."""
    return text.replace("\u202f", " ")


def play(way: np.ndarray, success: np.ndarray, rng: np.random.Generator) -> Trajectories:
    """Episodes that go one way each; codes round-robin."""
    time = np.linspace(0.25, 1.0, 4)[None, :, None]
    points = time * WAYS[way][:, None] + 0.2 * rng.normal(size=(len(way), 4, 2))
    return Trajectories(points, np.arange(len(way)) % 4, success, way)


def make_validator() -> Validator:
    return Validator(MODES, 0.95, 0.05, np.random.default_rng(0))


Say = Callable[..., tuple[list[str], SeedValidation]]


@pytest.fixture
def say(finished: MadeUpRun) -> Say:
    document = load_document(finished.layout.validation(finished.task), Validation)
    return functools.partial(describe, document)


def describe(
    document: Validation, ways: list[float], commanded: list[int], **outcome: Any
) -> tuple[list[str], SeedValidation]:
    """Sentences about a base policy with these shares of ways, whose code k leads to way commanded[k]."""
    rng, n = np.random.default_rng(0), 240
    won = rng.random(n) < outcome.get("success", 0.9)
    draw = [play(rng.choice(3, size=n, p=ways), won, rng) for _ in range(2)]
    validator = make_validator()
    base = validator.describe_base(*draw)
    way = np.array(commanded)[np.arange(n) % 4]
    found = validator.describe_seed(3, 4, play(way, won, rng), base)
    values = {"base": base, "discovered": [found]}
    return describe_validation(document.model_copy(update=values)), found


def test_several_ways_redundant_codes_and_a_missing_mode(say: Say) -> None:
    text, found = say([0.4, 0.3, 0.3], [0, 1, 1, 0])
    assert text[0].startswith("The base policy has more than one mode")
    assert (
        "Seed 3: codes 0 and 3 lead to the same mode; codes 1 and 2 lead to the same mode; no code leads to round."
        in text
    )
    assert found.truth is not None
    assert found.truth.missing == ["round"]
    assert found.truth.purity == 1.0


def test_equal_codes_are_not_told_apart_and_different_ones_are(say: Say) -> None:
    _, found = say([0.4, 0.3, 0.3], [0, 1, 1, 0])
    assert found.separation is not None
    by_code = [code.recognised for code in found.codes]
    assert all(share is not None and 0.2 < share < 0.8 for share in by_code)  # either of two codes that do the same
    table = np.array(found.separation.confusion)
    assert table[0, 1] == table[0, 2] == table[1, 0] == 0


def test_one_way_has_no_second_mode(say: Say) -> None:
    text, _ = say([1.0, 0.0, 0.0], [0, 1, 2, 0])
    assert text[0].startswith("No second mode of the base policy was found: ")


@pytest.mark.parametrize("success", [0.0, 0.05])
def test_few_successes_say_nothing(say: Say, success: float) -> None:
    text, found = say([0.4, 0.3, 0.3], [0, 1, 2, 0], success=success)
    assert "It is unknown" in text[0]
    assert found.truth is None
    assert not any("true modes" in sentence for sentence in text)


@pytest.fixture
def verdict(finished: MadeUpRun) -> Verdict:
    return load_document(finished.layout.verdict(finished.task), Verdict)


def test_hypotheses_are_claimed_and_told_with_their_numbers(verdict: Verdict) -> None:
    (pair,) = verdict.pairs
    one, two, _ = pair.hypotheses
    claim = narrative.state_claim(one, pair, verdict)
    assert claim == "dsrl-bmd succeeds as often as dsrl, or at most 2 points less often"
    said = [plain(narrative.describe_hypothesis(found, pair, verdict)) for found in pair.hypotheses]
    assert said[0].endswith("dsrl in 80.0 %: +10.0 points [5.0, 14.0], p = .030 corrected.")
    assert said[1].endswith("p = 1 corrected against the claim.")
    assert "at equal numbers of successes +0.10" in said[2]
    level = two.model_copy(update={"one": 3.0, "other": 3.0})
    assert "nothing to gain" in narrative.describe_hypothesis(level, pair, verdict)


def test_the_scope_of_few_seeds_is_these_policies(verdict: Verdict) -> None:
    text = plain(narrative.describe_scope(verdict))
    assert "2 seeds are too few to speak about training again" in text
    assert "p below 0.25" in text
    assert "at least 6 seeds" in text
    (pair,) = verdict.pairs
    by_seed = [found.model_copy(update={"unit": "seeds"}) for found in pair.hypotheses]
    enough = verdict.model_copy(update={"pairs": [pair.model_copy(update={"hypotheses": by_seed})]})
    assert narrative.describe_scope(enough).startswith("About training again with new seeds")
