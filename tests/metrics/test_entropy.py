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

from bmd_pipeline.metrics.entropy import mode_entropy

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
