"""Agreement of sortings against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.metrics.mode_checks import Trajectories, Validator, measure_agreement

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=3, max_size=30)


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@given(LABELS)
def test_measures_match_their_definitions(pairs: list[tuple[int, int]]) -> None:
    sorts, classes = (np.array(column) for column in zip(*pairs, strict=True))
    found = measure_agreement(sorts, classes)
    table = np.zeros((4, 3))
    np.add.at(table, (sorts, classes), 1)
    rows, columns = entropy(table.sum(axis=1)), entropy(table.sum(axis=0))
    information = rows + columns - entropy(table.ravel())
    together = (rows + columns) / 2
    assert found.nmi == pytest.approx(information / together if together > 0 else 1.0, abs=1e-9)
    # Rand, pair by pair: both together, expected by chance, and at most.
    twos = list(itertools.combinations(range(len(pairs)), 2))
    same = np.array([(sorts[i] == sorts[j], classes[i] == classes[j]) for i, j in twos])
    both, expected = same.all(axis=1).sum(), same[:, 0].sum() * same[:, 1].sum() / len(twos)
    most = same.sum() / 2
    assert found.ari == pytest.approx(1.0 if math.isclose(most, expected) else (both - expected) / (most - expected))


def test_names_do_not_matter() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    other = np.array([2, 2, 0, 0, 1, 1])
    found = measure_agreement(one, other)
    assert (found.nmi, found.ari) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(("shares", "missing"), [((0.5, 0.3, 0.2), ["east"]), ((0.7, 0.0, 0.3), [])])
def test_redundant_codes_and_missing_modes(shares: tuple[float, ...], missing: list[str]) -> None:
    modes = ("north", "east", "south")
    table = np.array([[9, 1, 0], [0, 0, 5], [7, 2, 2], [0, 0, 0]])  # successes of four codes in three modes
    codes, mode = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    codes, mode = np.append(codes, 3), np.append(mode, 0)  # the last code fails
    success = np.arange(len(codes)) < table.sum()
    validator = Validator(modes, 0.95, 0.05, np.random.default_rng(0))
    played = Trajectories(np.zeros((len(codes), 2, 1)), codes, success, mode)
    once = np.repeat(np.arange(3), np.multiply(shares, 10).round().astype(int))
    own = Trajectories(np.zeros((10, 2, 1)), np.zeros(10, np.int64), np.ones(10, bool), once)
    truth = validator.describe_seed(0, 4, played, validator.describe_base(own, own)).truth
    assert truth is not None
    assert truth.redundant == [[0, 2]]
    assert truth.missing == missing
    assert truth.purity == pytest.approx((9 + 5 + 7) / 26)
