"""Mode entropy against SciPy and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bmd_pipeline.metrics.scores import corrected_entropy, mode_entropy

counts = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 200).map(float))


@given(counts)
def test_matches_scipy(successes: NDArray[np.float64]) -> None:
    if successes.sum() > 0:
        assert mode_entropy(successes) == pytest.approx(scipy.stats.entropy(successes))
    assert 0 <= mode_entropy(successes) <= math.log(len(successes)) + 1e-15


@given(counts, st.floats(0.1, 50.0))
def test_depends_on_shares_alone(successes: NDArray[np.float64], scale: float) -> None:
    assert mode_entropy(successes * scale) == pytest.approx(mode_entropy(successes), abs=1e-9)
    assert mode_entropy(successes[::-1]) == pytest.approx(mode_entropy(successes), abs=1e-9)


@given(counts)
def test_merging_two_modes_never_raises_it(successes: NDArray[np.float64]) -> None:
    if len(successes) > 1:
        merged = np.append(successes[2:], successes[0] + successes[1])
        assert mode_entropy(merged) <= mode_entropy(successes) + 1e-9


def test_extremes() -> None:
    assert mode_entropy(np.full(24, 7.0)) == pytest.approx(math.log(24))
    assert math.copysign(1, mode_entropy(np.array([9.0, 0.0]))) == 1  # 0.0, not -0.0
    assert mode_entropy(np.zeros(4)) == 0


def test_leading_axes_are_a_batch() -> None:
    batch = np.array([[1.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(mode_entropy(batch), [math.log(2), 0, 0])


def test_correction_is_that_of_miller_and_madow() -> None:
    successes = np.array([[30.0, 8.0, 2.0, 0.0], [40.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = mode_entropy(successes) + np.array([2 / 80, 0, 0])
    np.testing.assert_array_equal(corrected_entropy(successes, successes), expected)


def test_correction_leaves_no_bias_of_first_order() -> None:
    successes = np.random.default_rng(0).multinomial(60, np.full(10, 0.1), size=4000).astype(float)
    assert mode_entropy(successes).mean() == pytest.approx(math.log(10) - 9 / 120, abs=0.01)
    assert corrected_entropy(successes, successes).mean() == pytest.approx(math.log(10), abs=0.01)


def test_weights_are_corrected_by_their_own_variance() -> None:
    """Each success has weights (1 - x, x) with x of mean .3: the plug-in estimate of 40 against that of very many."""
    x = np.random.default_rng(0).beta(0.9, 2.1, size=(4000, 40))
    weights = np.stack([1 - x, x], axis=-1)
    truth = mode_entropy(np.array([0.7, 0.3]))
    successes, squares = weights.sum(axis=1), (weights**2).sum(axis=1)
    assert mode_entropy(successes).mean() < truth - 0.002
    assert corrected_entropy(successes, squares).mean() == pytest.approx(truth, abs=0.001)
    assert corrected_entropy(successes, successes).mean() > truth + 0.005  # as if each were in one mode


@given(hnp.arrays(np.float64, (12, 5), elements=st.floats(0.01, 1.0)))
def test_correction_only_raises(weights: NDArray[np.float64]) -> None:
    weights /= weights.sum(axis=1, keepdims=True)
    successes, squares = weights.sum(axis=0), (weights**2).sum(axis=0)
    gain = corrected_entropy(successes, squares) - mode_entropy(successes)
    assert 0 <= gain <= 4 / 24 + 1e-12
