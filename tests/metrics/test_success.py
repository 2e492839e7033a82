"""Success, present and solved modes against hand-computed numbers, brute force and the laws they obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bmd_pipeline.metrics.scores import (
    MIN_MODE_SHARE,
    count_modes,
    is_present,
    is_solved,
    mode_shares,
    mode_success_rates,
    mode_weighted_success,
)

Case = tuple[NDArray[np.bool_], NDArray[np.float64]]


@st.composite
def outcomes(draw: st.DrawFn) -> Case:
    """Successes, and mode weights that are one-hot for successes and spread for failures."""
    n, num_modes = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    success = draw(hnp.arrays(np.bool_, n))
    mode = draw(hnp.arrays(np.int64, n, elements=st.integers(0, num_modes - 1)))
    raw = draw(hnp.arrays(np.float64, (n, num_modes), elements=st.floats(0.01, 1.0)))
    spread = raw / raw.sum(axis=1, keepdims=True)
    return success, np.where(success[:, None], np.eye(num_modes)[mode], spread)


def test_hand_computed_example() -> None:
    # Mode 0: 3 wins, 1 own failure, half of a shared failure. Mode 1: 1 win, the other half. Mode 2: nobody.
    success = np.array([True, True, True, False, False, True])
    weights = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 1, 0]], dtype=float)
    counts = count_modes(success, weights)
    np.testing.assert_allclose(counts[0], [3, 1, 0])
    np.testing.assert_allclose(counts[1], [4.5, 1.5, 0])
    np.testing.assert_allclose(mode_success_rates(*counts), [2 / 3, 2 / 3, 0])
    assert mode_weighted_success(*counts) == pytest.approx(4 / 9)
    np.testing.assert_allclose(mode_shares(counts[0]), [0.75, 0.25, 0])
    assert is_present(counts[0]).sum() == 2
    assert is_solved(*counts, tau=0.6).sum() == 2
    assert is_solved(*counts, tau=0.7).sum() == 0


def test_failures_count_against_the_mode_they_were_in() -> None:
    success = np.array([True] * 5 + [True] + [False] * 4)
    mode = [0] * 5 + [1] * 5
    # Mode 1 works once in five. A label of successes alone would score both modes 1.
    assert mode_weighted_success(*count_modes(success, np.eye(2)[mode])) == pytest.approx(0.6)
    assert mode_weighted_success(*count_modes(success[:6], np.eye(2)[mode[:6]])) == 1


def test_a_lone_success_makes_no_mode_present() -> None:
    successes = np.array([199.0, 1.0])
    assert is_present(successes).sum() == is_solved(successes, successes, tau=0.8).sum() == 1
    np.testing.assert_array_equal(is_present(np.array([198.0, 2.0])), [True, True])


def test_nothing_succeeded() -> None:
    counts = np.zeros(3), np.array([2.0, 0.0, 5.0])
    assert mode_weighted_success(*counts) == 0
    assert not is_present(counts[0]).any()
    assert not is_solved(*counts, tau=0.5).any()
    np.testing.assert_array_equal(mode_shares(counts[0]), 0)


@given(outcomes(), st.floats(0.05, 1.0))
def test_matches_brute_force(case: Case, tau: float) -> None:
    success, weights = case
    rates = []
    present = solved = 0
    for i in range(weights.shape[1]):
        seen = sum(weights[:, i].tolist())
        won = sum(w for w, ok in zip(weights[:, i].tolist(), success.tolist(), strict=True) if ok)
        rates.append(won / seen if seen else 0.0)
        here = won > 0 and won / success.sum() >= MIN_MODE_SHARE
        # A rate within rounding of τ may fall on either side; hypothesis finds those at once.
        present += here
        solved += here and rates[-1] >= tau - 1e-12
    counts = count_modes(success, weights)
    np.testing.assert_allclose(mode_success_rates(*counts), rates)
    assert mode_weighted_success(*counts) == pytest.approx(np.mean(rates))
    assert is_present(counts[0]).sum() == present
    if min(abs(rate - tau) for rate in rates) > 1e-9:
        assert is_solved(*counts, tau=tau).sum() == solved


@given(outcomes(), st.floats(0.05, 1.0))
def test_bounds(case: Case, tau: float) -> None:
    counts = count_modes(*case)
    assert 0 <= mode_weighted_success(*counts) <= 1
    num_modes = len(counts[0])
    assert 0 <= is_solved(*counts, tau=tau).sum() <= is_present(counts[0]).sum() <= num_modes
    # A solved mode contributes at least τ to SRM.
    assert is_solved(*counts, tau=tau).sum() * tau / num_modes <= mode_weighted_success(*counts) + 1e-9


@given(outcomes(), st.integers(0, 2**32 - 1))
def test_order_of_episodes_and_modes_is_irrelevant(case: Case, seed: int) -> None:
    success, weights = case
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(success)), rng.permutation(weights.shape[1])
    counts = count_modes(success, weights)
    mixed = count_modes(success[rows], weights[rows][:, columns])
    assert mode_weighted_success(*counts) == pytest.approx(mode_weighted_success(*mixed))
    np.testing.assert_allclose(mode_shares(counts[0])[columns], mode_shares(mixed[0]))


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 30))))
def test_srm_is_sr_when_modes_are_visited_equally(success: NDArray[np.bool_]) -> None:
    num_modes, visits = success.shape
    weights = np.repeat(np.eye(num_modes), visits, axis=0)
    counts = count_modes(success.ravel(), weights)
    assert mode_weighted_success(*counts) == pytest.approx(success.mean())


@settings(max_examples=30)
@given(st.lists(outcomes(), min_size=2, max_size=4))
def test_leading_axes_are_a_batch(cases: list[Case]) -> None:
    width = min(weights.shape[1] for _, weights in cases)
    counts = [count_modes(success, weights[:, :width]) for success, weights in cases]
    stacked = tuple(np.stack(column) for column in zip(*counts, strict=True))
    for metric in (mode_weighted_success, lambda won, seen: is_solved(won, seen, 0.8).sum(axis=-1)):
        np.testing.assert_allclose(metric(*stacked), [metric(*one) for one in counts])
