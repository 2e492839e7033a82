import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.policies.diffusion import MAX_SIGNAL, MIN_SIGNAL, ddim_timesteps, make_alphas_cumprod

names = st.sampled_from(["cosine", "linear"])


@given(names, st.integers(1, 1000))
def test_signal_falls_strictly_inside_its_bounds(name: str, steps: int) -> None:
    signal = make_alphas_cumprod(name, steps)  # type: ignore[arg-type]
    assert signal.shape == (steps,)
    for values in (signal, signal.float()):  # float32, too: training uses it
        assert (values.diff() < 0).all()
        assert MIN_SIGNAL <= values[-1] <= values[0] < MAX_SIGNAL
    assert signal[-1] < 0.002  # nothing of the chunk is left to see at the start of sampling


def test_known_values() -> None:
    squeeze = MAX_SIGNAL - MIN_SIGNAL
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert float(make_alphas_cumprod("cosine", 20)[9]) == pytest.approx(MIN_SIGNAL + squeeze * half, rel=1e-12)
    linear = math.exp(-0.05 - 0.125 * 19.9)
    assert float(make_alphas_cumprod("linear", 20)[9]) == pytest.approx(MIN_SIGNAL + squeeze * linear, rel=1e-12)


def test_linear_is_the_limit_of_linear_betas() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    discrete = torch.cumprod(1 - betas, 0)
    continuous = (make_alphas_cumprod("linear", 1000) - MIN_SIGNAL) / (MAX_SIGNAL - MIN_SIGNAL)
    torch.testing.assert_close(continuous, discrete, atol=2e-3, rtol=0)


def test_timesteps_by_hand() -> None:
    assert ddim_timesteps(20, 2) == (19, 9)
    assert ddim_timesteps(20, 4) == (19, 14, 9, 4)
    assert ddim_timesteps(5, 1) == (4,)


@given(st.integers(1, 1000), st.data())
def test_timesteps_fall_from_the_noisiest_in_even_steps(steps: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, steps))
    timesteps = ddim_timesteps(steps, count)
    gaps = [a - b for a, b in zip(timesteps, [*timesteps[1:], -1], strict=True)]
    assert timesteps[0] == steps - 1
    assert len(timesteps) == count
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1
