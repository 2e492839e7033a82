"""Whole denoising chains of networks with random weights against Hugging Face diffusers."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from torch.nn import functional as F

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy, ddim_timesteps, make_alphas_cumprod

KINDS = list(itertools.product(["x0", "epsilon"], ["cosine", "linear"]))
CLIP = 1.5  # tight enough that random weights meet it


def make_policy(prediction: str, schedule: str, steps: int, **settings: Any) -> DiffusionPolicy:
    torch.manual_seed(steps)
    config = PolicyConfig.model_validate(
        {
            "horizon": 4,
            "hidden_sizes": (16, 16),
            "prediction": prediction,
            "schedule": schedule,
            "denoising_steps": steps,
        }
        | settings
    )
    policy = DiffusionPolicy(config, obs_dim=3, action_dim=2).requires_grad_(False).double()
    policy.chunk_low.fill_(-CLIP)
    policy.chunk_high.fill_(CLIP)
    policy.denoiser.rest[-1].weight.mul_(8.0)  # type: ignore[operator,union-attr]
    return policy


def scheduler_settings(config: PolicyConfig) -> dict[str, Any]:
    """The same diffusion process in their words: they take β, we ᾱ."""
    signal = make_alphas_cumprod(config.schedule, config.denoising_steps)
    before = torch.cat([torch.ones(1, dtype=signal.dtype), signal[:-1]])
    return {
        "num_train_timesteps": config.denoising_steps,
        "trained_betas": (1 - signal / before).tolist(),
        "prediction_type": "sample" if config.prediction == "x0" else "epsilon",
        "clip_sample": True,
        "clip_sample_range": CLIP,
        "timestep_spacing": "trailing",
    }


def network_output(policy: DiffusionPolicy, x: Tensor, cond: Tensor, t: int) -> Tensor:
    output: Tensor = policy.denoiser(x, policy.denoiser.embed_cond(cond) + policy.denoiser.embed_time()[t])
    return output


def draw(policy: DiffusionPolicy) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    noise, cond = (torch.randn(32, n, generator=generator).double() for n in (policy.noise_dim, policy.cond_dim))
    return noise, cond


@pytest.mark.parametrize(("prediction", "schedule"), KINDS)
@pytest.mark.parametrize(("steps", "ddim_steps"), [(1, 1), (20, 2), (20, 20), (100, 5), (100, 50)])
def test_ddim(prediction: str, schedule: str, steps: int, ddim_steps: int) -> None:
    policy = make_policy(prediction, schedule, steps, ddim_steps=ddim_steps)
    scheduler = DDIMScheduler(**scheduler_settings(policy.config), set_alpha_to_one=True)
    scheduler.set_timesteps(ddim_steps)
    assert tuple(scheduler.timesteps.tolist()) == policy.timesteps
    x, cond = draw(policy)
    ours = policy.sample(x, cond)
    for k, t in enumerate(policy.timesteps):
        step = scheduler.step(network_output(policy, x, cond, t), t, x, eta=0.0, use_clipped_model_output=True)
        mean = policy.sampler.step_mean(x, k, policy.condition(cond))
        torch.testing.assert_close(mean, step.prev_sample, rtol=1e-4, atol=1e-4)
        x = step.prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    assert bool((ours.abs() < CLIP).any()), "all is clipped: the test would see nothing"


@pytest.mark.parametrize(("prediction", "schedule"), KINDS)
@pytest.mark.parametrize(("steps", "ddim_steps"), [(20, 2), (20, 20), (100, 5)])
@pytest.mark.parametrize("eta", [0.3, 0.5, 1.0])
def test_ddim_that_adds_noise(prediction: str, schedule: str, steps: int, ddim_steps: int, eta: float) -> None:
    policy = make_policy(prediction, schedule, steps, ddim_steps=ddim_steps)
    scheduler = DDIMScheduler(**scheduler_settings(policy.config), set_alpha_to_one=True)
    scheduler.set_timesteps(ddim_steps)
    sampler = policy.make_sampler(eta)
    x, cond = draw(policy)
    predict = policy.condition(cond)
    ours = sampler.sample(x, predict, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    for k, t in enumerate(policy.timesteps):
        output = network_output(policy, x, cond, t)
        still = scheduler.step(
            output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=torch.zeros_like(x)
        ).prev_sample
        torch.testing.assert_close(sampler.step_mean(x, k, predict), still, rtol=1e-4, atol=1e-4)
        drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype) if sampler.stds[k] else torch.zeros_like(x)
        x = scheduler.step(output, t, x, eta=eta, use_clipped_model_output=True, variance_noise=drawn).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, policy.sample(draw(policy)[0], cond), atol=1e-2), "η plays no part"


@pytest.mark.parametrize(("prediction", "schedule"), KINDS)
@pytest.mark.parametrize("steps", [1, 5, 20, 100])
def test_ddpm_with_the_same_noise(prediction: str, schedule: str, steps: int) -> None:
    policy = make_policy(prediction, schedule, steps, sampler="ddpm", ddim_steps=1)
    scheduler = DDPMScheduler(**scheduler_settings(policy.config), variance_type="fixed_small")
    x, cond = draw(policy)
    ours = policy.sample(x, cond, torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    for k, t in enumerate(policy.timesteps):
        output = network_output(policy, x, cond, t)
        still = scheduler.step(output, t, x, generator=torch.Generator().manual_seed(k)).prev_sample
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(k), dtype=x.dtype)
        mean = policy.sampler.step_mean(x, k, policy.condition(cond))
        torch.testing.assert_close(mean + policy.sampler.stds[k] * drawn, still, rtol=1e-4, atol=1e-4)
        x = scheduler.step(output, t, x, generator=generator).prev_sample
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)
    assert bool((ours.abs() < CLIP).any()), "all is clipped: the test would see nothing"


@pytest.mark.parametrize(("prediction", "schedule"), KINDS)
def test_training_noises_as_they_do(prediction: str, schedule: str) -> None:
    policy = make_policy(prediction, schedule, 20)
    scheduler = DDPMScheduler(**scheduler_settings(policy.config))
    noise, cond = draw(policy)
    chunk = noise.flip(0)
    t = torch.arange(len(noise)) % 20
    x = scheduler.add_noise(chunk, noise, t)
    outputs = torch.cat([network_output(policy, x[i : i + 1], cond[i : i + 1], int(t[i])) for i in range(len(x))])
    expected = F.mse_loss(outputs, chunk if prediction == "x0" else noise)
    torch.testing.assert_close(policy.denoising_loss(chunk, cond, t, noise), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 20, 100, 1000])
def test_the_capped_cosine_is_theirs(steps: int) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2")
    ours = make_alphas_cumprod("cosine_capped", steps)
    torch.testing.assert_close(ours.float(), scheduler.alphas_cumprod, rtol=2e-3, atol=1e-6)  # theirs is of float32


@pytest.mark.parametrize(("steps", "ddim_steps"), [(20, 2), (100, 5), (10, 3)])
def test_leading_timesteps_are_theirs(steps: int, ddim_steps: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=steps, timestep_spacing="leading")
    scheduler.set_timesteps(ddim_steps)
    assert ddim_timesteps(steps, ddim_steps, "leading") == tuple(scheduler.timesteps.tolist())
