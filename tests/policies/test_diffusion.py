import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.policies.diffusion import DiffusionPolicy, make_alphas_cumprod, make_ddim_sampler
from tests.policies.plain import run_plainly


def make_policy(seed: int = 0, **settings: Any) -> DiffusionPolicy:
    torch.manual_seed(seed)
    config = PolicyConfig(**{"horizon": 4, "n_action_steps": 2, "hidden_sizes": (16, 16), **settings})
    policy = DiffusionPolicy(config, obs_dim=3, action_dim=2)
    policy.fit_normalisers(torch.rand(50, policy.noise_dim) - 0.5, 5 + 3 * torch.randn(50, policy.cond_dim))
    return policy


@pytest.fixture
def policy() -> DiffusionPolicy:
    return make_policy()


def draw(policy: DiffusionPolicy, count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, policy.noise_dim, generator=generator)
    return noise, policy.encode(5 + torch.randn(count, policy.cond_dim, generator=generator))


def test_observations_far_from_the_demonstrations_are_bounded() -> None:
    """A joint that hardly moves there may be a hundred standard deviations away in a fall."""
    policy = make_policy()
    far = policy.obs_normaliser.mean + 100.0 * policy.obs_normaliser.std
    near = policy.obs_normaliser.mean - 4.9 * policy.obs_normaliser.std
    assert policy.bounded_share(torch.stack([far, near])) == 0.5
    cond = policy.encode(torch.stack([far, near]))
    assert torch.equal(cond[0], torch.full_like(cond[0], policy.config.clip_obs))
    torch.testing.assert_close(cond[1], torch.full_like(cond[1], -4.9))
    broken = torch.tensor([math.nan, math.inf, -math.inf]).expand(2, 3).flatten()
    assert policy.encode(broken[None])[0, :3].tolist() == [0.0, policy.config.clip_obs, -policy.config.clip_obs]


def test_dimensions(policy: DiffusionPolicy) -> None:
    assert policy.noise_dim == 8
    assert policy.cond_dim == 6
    noise, cond = draw(policy)
    chunk = policy.sample(noise, cond)
    assert chunk.shape == (6, 8)
    assert policy.to_action(chunk).shape == (6, 4, 2)


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_steps_chained_are_the_sample(prediction: str) -> None:
    policy = make_policy(prediction=prediction, ddim_steps=5)
    noise, cond = draw(policy)
    x = noise
    for k in range(len(policy.timesteps)):
        assert policy.sampler.stds[k] == 0.0
        x = policy.sampler.step_mean(x, k, policy.condition(cond))
    assert torch.equal(x, policy.sample(noise, cond))


def test_ddim_is_a_function_of_noise_and_condition(policy: DiffusionPolicy) -> None:
    noise, cond = draw(policy)
    first = policy.sample(noise, cond)
    torch.randn(10)  # global randomness plays no part
    assert torch.equal(policy.sample(noise, cond), first)
    assert not torch.allclose(policy.sample(noise + 1, cond), first)
    assert not torch.allclose(policy.sample(noise, cond + 1), first)
    # rows are independent of each other
    torch.testing.assert_close(policy.sample(noise[2:3], cond[2:3]), first[2:3], rtol=1e-5, atol=1e-6)


def test_ddpm_sampler() -> None:
    policy = make_policy(sampler="ddpm")
    assert policy.timesteps == tuple(range(19, -1, -1))
    noise, cond = draw(policy)
    with pytest.raises(ValueError, match="pass a generator"):
        policy.sample(noise, cond)
    configured = policy.sample(noise, cond, torch.Generator().manual_seed(3))
    chain = make_ddim_sampler(make_alphas_cumprod(policy.config.schedule, 20), policy.timesteps, eta=1.0)
    assert torch.equal(configured, chain.sample(noise, policy.condition(cond), torch.Generator().manual_seed(3)))
    assert not torch.equal(configured, policy.sample(noise, cond, torch.Generator().manual_seed(4)))


class ExactDenoiser(nn.Module):
    """Stands in for the network: answers for data N(mean, std²), in whichever form is asked for."""

    def __init__(self, policy: DiffusionPolicy, mean: float, std: float) -> None:
        super().__init__()
        self.signal = policy.alphas_cumprod.double()
        self.wants_noise = policy.config.prediction == "epsilon"
        self.mean, self.std = mean, std

    def embed_cond(self, cond: Tensor) -> Tensor:
        return torch.zeros(len(cond), 1, dtype=torch.float64)

    def embed_time(self) -> Tensor:
        return torch.arange(len(self.signal), dtype=torch.float64)[:, None]

    def forward(self, x: Tensor, context: Tensor, modulation: object) -> Tensor:
        signal = self.signal[context.long()]  # (B, 1)
        gain = self.std**2 * signal.sqrt() / (signal * self.std**2 + 1 - signal)
        x0 = self.mean + gain * (x - signal.sqrt() * self.mean)
        return (x - signal.sqrt() * x0) / (1 - signal).sqrt() if self.wants_noise else x0


@pytest.mark.parametrize("ddim_steps", [1, 2, 20])
def test_predicting_noise_or_chunk_is_the_same_under_the_exact_denoiser(ddim_steps: int) -> None:
    samples = []
    for prediction in ("x0", "epsilon"):
        policy = make_policy(prediction=prediction, ddim_steps=ddim_steps)
        policy.denoiser = ExactDenoiser(policy, 0.3, 0.5)  # type: ignore[assignment]
        noise, cond = draw(policy)
        samples.append(policy.sample(noise.double(), cond))
    torch.testing.assert_close(samples[0], samples[1], rtol=1e-5, atol=1e-6)


def test_many_steps_reach_the_distribution_of_the_data() -> None:
    policy = make_policy(denoising_steps=200, ddim_steps=200)
    policy.chunk_low.fill_(-50.0)
    policy.chunk_high.fill_(50.0)
    policy.denoiser = ExactDenoiser(policy, 0.3, 0.5)  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, policy.noise_dim, generator=generator).double()
    sample = policy.sample(noise, torch.zeros(4000, policy.cond_dim))
    assert float(sample.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(sample.std()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_predictions_stay_in_the_range_of_the_data(prediction: str) -> None:
    policy = make_policy(prediction=prediction)
    chunk = (torch.rand(50, policy.noise_dim) - 0.5) * torch.tensor([1.0, 0.1]).repeat(4)
    held_out = torch.tensor([[0.9, 0.0], [0.0, -0.2]])
    policy.fit_normalisers(chunk, torch.randn(50, policy.cond_dim), torch.cat([chunk.view(-1, 2), held_out]))
    noise, cond = draw(policy)
    actions = policy.to_action(policy.sample(1000 * noise, cond)).flatten(0, 1)
    low, high = actions.amin(dim=0), actions.amax(dim=0)
    torch.testing.assert_close(high, torch.stack([held_out[0, 0], chunk.view(-1, 2)[:, 1].max()]))
    torch.testing.assert_close(low, torch.stack([chunk.view(-1, 2)[:, 0].min(), held_out[1, 1]]))


@given(rare=st.floats(-1.0, 1.0), share=st.floats(0.001, 0.5), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_every_demonstrated_action_can_be_reached(rare: float, share: float, seed: int) -> None:
    """A bound in standard deviations cut a gripper's rare pulse of 1 to .415."""
    policy = make_policy()
    draws = torch.rand(1000, generator=torch.Generator().manual_seed(seed))
    pulse = torch.where(draws < share, rare, 0.1)
    pulse[0] = rare
    chunk = torch.stack([pulse, draws], dim=1).repeat(1, 4)
    policy.fit_normalisers(chunk, torch.randn(1000, policy.cond_dim))
    clean = policy.normalise_chunk(chunk)
    reached = policy.to_action(clean.clamp(policy.chunk_low, policy.chunk_high))
    torch.testing.assert_close(reached.flatten(1), chunk, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_loss_is_the_textbook_one(prediction: str) -> None:
    policy = make_policy(prediction=prediction)
    chunk, stacked = torch.rand(32, 8) - 0.5, 5 + torch.randn(32, 6)
    loss = policy.loss(chunk, stacked, torch.Generator().manual_seed(5))
    t, noise = policy.draw_corruption(32, torch.Generator().manual_seed(5))
    total = 0.0
    for i in range(32):
        x0 = (chunk[i].view(4, 2) - policy.action_normaliser.mean) / policy.action_normaliser.std
        signal = float(policy.alphas_cumprod[t[i]])
        x = math.sqrt(signal) * x0.flatten() + math.sqrt(1 - signal) * noise[i]
        cond = (stacked[i] - policy.obs_normaliser.mean) / policy.obs_normaliser.std
        features = policy.denoiser.features[t[i]]
        output = run_plainly(policy.denoiser, torch.cat([x, cond, features]))
        target = x0.flatten() if prediction == "x0" else noise[i]
        total += (output - target).square().mean().item()
    assert loss.item() == pytest.approx(total / 32, rel=1e-4)


def test_corruption_covers_all_steps(policy: DiffusionPolicy) -> None:
    t, noise = policy.draw_corruption(2000, torch.Generator().manual_seed(0))
    assert set(t.tolist()) == set(range(20))
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)


def test_a_sample_is_differentiable_and_reaches_every_weight(policy: DiffusionPolicy) -> None:
    noise, cond = draw(policy)
    noise.requires_grad_(True)
    policy.sample(noise, cond).square().sum().backward()
    assert noise.grad is not None
    assert noise.grad.abs().sum() > 0
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_actions_are_in_the_tasks_units(policy: DiffusionPolicy) -> None:
    chunk = torch.rand(7, 8) * 2 - 1
    restored = policy.to_action(policy.normalise_chunk(chunk))
    torch.testing.assert_close(restored.flatten(1), chunk)
    assert policy.to_action(torch.full((1, 8), 100.0)).max() == 1.0
    assert policy.to_action(torch.full((1, 8), -100.0)).min() == -1.0


def test_checkpoint_holds_weights_and_scales_only(policy: DiffusionPolicy) -> None:
    names = set(policy.state_dict())
    assert {"obs_normaliser.mean", "obs_normaliser.std", "action_normaliser.mean", "action_normaliser.std"} <= names
    assert names - {name for name, _ in policy.named_parameters()} == {
        *(name for name in names if "normaliser" in name),
        "chunk_low",
        "chunk_high",
    }


# codes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("prediction", ["x0", "epsilon"])
def test_codes_that_were_not_taught_answer_as_the_base_policy_bit_for_bit(prediction: str, sampler: str) -> None:
    policy = make_policy(prediction=prediction, sampler=sampler)
    coded = policy.with_codes(3)
    noise, cond = draw(policy, 12)
    code = torch.arange(12) % 3

    def sample(who: DiffusionPolicy, told: Tensor | None) -> Tensor:
        return who.sample(noise, cond, torch.Generator().manual_seed(0), told)

    expected = sample(policy, None)
    assert torch.equal(sample(coded, code), expected)
    assert torch.equal(sample(coded, None), expected)
    assert torch.equal(sample(policy, code), expected), "a policy without codes ignores them"
    t, drawn = policy.draw_corruption(12, torch.Generator().manual_seed(1))
    assert torch.equal(coded.denoising_loss(noise, cond, t, drawn, code), policy.denoising_loss(noise, cond, t, drawn))


def test_a_code_moves_its_own_samples_only(policy: DiffusionPolicy) -> None:
    coded = policy.with_codes(3)
    with torch.no_grad():
        for table in coded.denoiser.code_tables:
            table[1].normal_(generator=torch.Generator().manual_seed(2))
    noise, cond = draw(policy, 12)
    code = torch.arange(12) % 3
    moved = (coded.sample(noise, cond, code=code) != policy.sample(noise, cond)).any(dim=1)
    assert torch.equal(moved, code == 1)


def test_a_copy_with_codes_shares_no_weight_with_the_policy(policy: DiffusionPolicy) -> None:
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    coded = policy.with_codes(2)
    with torch.no_grad():
        for parameter in coded.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
