"""The samplers against the textbook formulas, and against a distribution whose denoiser is known exactly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmd_pipeline.policies.diffusion import (
    Denoise,
    Sampler,
    ddim_timesteps,
    make_alphas_cumprod,
    make_ddim_sampler,
)

schedules = st.sampled_from(["cosine", "linear"])
MEAN, STD = 0.7, 0.4


def make_ddpm_sampler(signal: Tensor) -> Sampler:
    """DDPM as DDIM writes it."""
    return make_ddim_sampler(signal, tuple(range(len(signal) - 1, -1, -1)), eta=1.0)


def exact_denoiser(signal: Tensor) -> Denoise:
    """E[x_0 | x_t] for x_0 ~ N(MEAN, STD²): regression of one Gaussian on another."""

    def denoise(x: Tensor, t: int) -> Tensor:
        a = float(signal[t])
        return MEAN + STD**2 * math.sqrt(a) / (a * STD**2 + 1 - a) * (x - math.sqrt(a) * MEAN)

    return denoise


@given(schedules, st.integers(2, 40), st.data())
def test_ddim_is_the_textbook_step(name: str, steps: int, data: st.DataObject) -> None:
    signal = make_alphas_cumprod(name, steps)  # type: ignore[arg-type]
    timesteps = ddim_timesteps(steps, data.draw(st.integers(1, steps)))
    sampler = make_ddim_sampler(signal, timesteps)
    generator = torch.Generator().manual_seed(steps)
    x, x0 = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    for k, t in enumerate(timesteps):
        noise = (x - signal[t].sqrt() * x0) / (1 - signal[t]).sqrt()
        after = signal[timesteps[k + 1]] if k + 1 < len(timesteps) else torch.tensor(1.0)
        expected = after.sqrt() * x0 + (1 - after).sqrt() * noise
        torch.testing.assert_close(sampler.step_mean(x, k, lambda *_: x0), expected, rtol=1e-9, atol=1e-9)


@given(schedules, st.integers(1, 40))
def test_ddpm_step_is_the_posterior_of_two_gaussians(name: str, steps: int) -> None:
    """q(x_{t-1} | x_t, x_0) as a product of N(x_t; √α x, 1 - α) and N(x; √ᾱ' x_0, 1 - ᾱ'), by precisions."""
    signal = make_alphas_cumprod(name, steps)  # type: ignore[arg-type]
    sampler = make_ddpm_sampler(signal)
    x, x0 = torch.tensor([0.3], dtype=torch.float64), torch.tensor([-1.2], dtype=torch.float64)
    for k, t in enumerate(sampler.timesteps[:-1]):
        alpha = float(signal[t] / signal[t - 1])
        before = float(signal[t - 1])
        precision = alpha / (1 - alpha) + 1 / (1 - before)
        mean = (math.sqrt(alpha) * x / (1 - alpha) + math.sqrt(before) * x0 / (1 - before)) / precision
        torch.testing.assert_close(sampler.step_mean(x, k, lambda *_: x0), mean, rtol=1e-6, atol=1e-8)
        assert sampler.stds[k] == pytest.approx(precision**-0.5, rel=1e-6)
    assert torch.equal(sampler.step_mean(x, steps - 1, lambda *_: x0), x0)
    assert sampler.stds[-1] == 0.0


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_ddim_maps_noise_onto_the_data_distribution(name: str) -> None:
    """With the exact denoiser many DDIM steps solve the flow, which keeps standard scores."""
    signal = make_alphas_cumprod(name, 1000)  # type: ignore[arg-type]
    sampler = make_ddim_sampler(signal, ddim_timesteps(1000, 1000))
    noise = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    last = float(signal[-1])
    score = (noise - math.sqrt(last) * MEAN) / math.sqrt(last * STD**2 + 1 - last)
    sample = sampler.sample(noise, exact_denoiser(signal))
    torch.testing.assert_close(sample, MEAN + STD * score, atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_ddpm_draws_the_data_distribution(name: str) -> None:
    signal = make_alphas_cumprod(name, 500)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20_000, 1, generator=generator)
    sample = make_ddpm_sampler(signal).sample(noise, exact_denoiser(signal), generator)
    # standard error of the mean .003, of the deviation .002; the discretisation adds about .01
    assert float(sample.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(sample.std()) == pytest.approx(STD, abs=0.02)


def test_one_step_returns_the_prediction() -> None:
    signal = make_alphas_cumprod("cosine", 20)
    sampler = make_ddim_sampler(signal, ddim_timesteps(20, 1))
    noise = torch.randn(4, 2)
    assert torch.equal(sampler.sample(noise, lambda x, t: 3 * x), 3 * noise)


def test_determinism() -> None:
    signal = make_alphas_cumprod("cosine", 20)
    denoise = exact_denoiser(signal)
    noise = torch.randn(4, 2)
    ddim, ddpm = make_ddim_sampler(signal, (19, 9)), make_ddpm_sampler(signal)
    assert not any(ddim.stds)
    assert any(ddpm.stds)
    assert torch.equal(ddim.sample(noise, denoise), ddim.sample(noise, denoise))
    first, second, other = (ddpm.sample(noise, denoise, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="pass a generator"):
        ddpm.sample(noise, denoise)


@given(schedules, st.integers(1, 100))
@settings(max_examples=40)
def test_ddim_with_all_the_noise_over_all_steps_is_ddpm(name: str, steps: int) -> None:
    """Ho, Jain and Abbeel 2020, equations 6 and 7, the posterior variance."""
    signal = make_alphas_cumprod(name, steps)  # type: ignore[arg-type]
    sampler = make_ddpm_sampler(signal)
    before = torch.cat([torch.ones(1, dtype=signal.dtype), signal[:-1]])
    alpha = signal / before
    formulas = (
        before.sqrt() * (1 - alpha) / (1 - signal),
        alpha.sqrt() * (1 - before) / (1 - signal),
        ((1 - before) / (1 - signal) * (1 - alpha)).sqrt(),
    )
    for ours, theirs in zip((sampler.x0_weights, sampler.x_weights, sampler.stds), formulas, strict=True):
        assert ours == pytest.approx(theirs.flip(0).tolist(), rel=1e-7, abs=1e-7)


@given(schedules, st.integers(2, 40), st.floats(0.0, 1.0), st.data())
def test_noise_is_kept_at_every_eta(name: str, steps: int, eta: float, data: st.DataObject) -> None:
    """Of x = sqrt(ᾱ) x_0 + sqrt(1 - ᾱ) ε the next one has the signal and the noise of its own diffusion step."""
    signal = make_alphas_cumprod(name, steps)  # type: ignore[arg-type]
    timesteps = ddim_timesteps(steps, data.draw(st.integers(1, steps)))
    sampler, still = (make_ddim_sampler(signal, timesteps, each) for each in (eta, 0.0))
    for k, t in enumerate(timesteps):
        after = float(signal[timesteps[k + 1]]) if k + 1 < len(timesteps) else 1.0
        kept = sampler.x0_weights[k] + sampler.x_weights[k] * math.sqrt(signal[t])
        noise = sampler.x_weights[k] ** 2 * (1 - float(signal[t])) + sampler.stds[k] ** 2
        assert kept == pytest.approx(math.sqrt(after), abs=1e-6)
        assert noise == pytest.approx(1 - after, abs=1e-6)
    assert still.stds == (0.0,) * len(timesteps)
    assert sampler.stds[-1] == 0.0
