"""Agreement of sortings against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.metrics.mode_checks import (
    count_pairs,
    find_missing,
    find_redundant,
    measure_agreement,
    measure_purity,
)

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=3, max_size=30)


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


@given(LABELS)
def test_measures_match_their_definitions(pairs: list[tuple[int, int]]) -> None:
    sorts, classes = (np.array(column) for column in zip(*pairs, strict=True))
    found = measure_agreement(sorts, classes)
    table = count_pairs(sorts, classes)
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
    majority = sum(max(np.bincount(classes[sorts == sort])) for sort in set(sorts.tolist()))
    assert measure_purity(table) == pytest.approx(majority / len(pairs))


def test_names_do_not_matter() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    other = np.array([2, 2, 0, 0, 1, 1])
    found = measure_agreement(one, other)
    assert (found.nmi, found.ari, measure_purity(count_pairs(one, other))) == pytest.approx((1.0, 1.0, 1.0))


def test_redundant_codes_and_missing_modes() -> None:
    table = np.array([[9, 1, 0], [0, 0, 5], [7, 2, 2], [0, 0, 0]])
    assert find_redundant(table) == [[0, 2]]
    assert find_missing(table, np.array([True, True, True])) == [1]
    assert find_missing(table, np.array([True, False, True])) == []
    assert find_missing(np.zeros((2, 2), np.int64), np.array([True, True])) == [0, 1]
