import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmd_pipeline.policies.learning_rate import cosine_learning_rate


def test_by_hand() -> None:
    rates = [cosine_learning_rate(step, peak=2.0, warmup=2, total=6) for step in range(7)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[3] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[4] == pytest.approx(1.0)
    assert rates[6] == pytest.approx(0.0)


@given(st.integers(1, 200), st.integers(0, 300), st.floats(1e-6, 1))
@settings(deadline=None)
def test_rises_then_falls_within_bounds(total: int, warmup: int, peak: float) -> None:
    rates = [cosine_learning_rate(step, peak=peak, warmup=warmup, total=total) for step in range(total)]
    assert all(0 < rate <= peak for rate in rates)
    turn = min(warmup, total)
    assert rates[:turn] == sorted(rates[:turn])
    assert rates[turn:] == sorted(rates[turn:], reverse=True)
