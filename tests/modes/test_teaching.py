"""Clusters of demonstrations, and codes that a denoiser is taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import DiscoverConfig, PolicyConfig, PretrainConfig, TeachingConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.modes.teaching import Teacher, cluster_demos, describe_demos
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy

WAYS = torch.tensor([[0.8, 0.0], [-0.8, 0.0], [0.0, 0.8]])
"""Directions in which demonstrations leave one and the same place."""


def make_demos(counts: tuple[int, ...], seed: int = 0) -> tuple[Demos, Tensor]:
    """Walks of 8 to 15 steps, in random order, and the way of each; slow and quick walks go as far."""
    generator = np.random.default_rng(seed)
    ways = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    obs, action, ends = [], [], []
    for way in ways:
        length = int(generator.integers(8, 16))
        step = WAYS[way].numpy() * 10.0 / length + 0.02 * generator.standard_normal((length, 2))
        obs.append(np.cumsum(step, axis=0) - step)
        action.append(step)
        ends.append((ends[-1] if ends else 0) + length)
    rows = (np.concatenate(part).astype(np.float32) for part in (obs, action))
    return Demos(*rows, np.asarray(ends, np.int64), {}), torch.from_numpy(ways)


def describe(demos: Demos, points: int = 12) -> Tensor:
    """With an earlier observation beside the present one, as a history has it."""
    obs = torch.from_numpy(demos.obs)
    return describe_demos(demos, torch.cat([obs, torch.full_like(obs, 1e3)], dim=1), 2, points)


def test_a_demonstration_is_described_by_its_observations_at_even_spaces() -> None:
    demos, _ = make_demos((3, 3))
    points = describe(demos, 5).view(6, 5, 2)
    for episode, (first, end) in enumerate(zip(demos.episode_starts, demos.episode_ends, strict=True)):
        at = np.linspace(0, 1, 6)[1:] * (end - first - 1)
        for column in range(2):
            expected = np.interp(at, np.arange(end - first), demos.obs[first:end, column])
            np.testing.assert_allclose(points[episode, :, column].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("counts", [(60, 60), (100, 40), (60, 50, 35)])
def test_ways_are_found_with_their_number(counts: tuple[int, ...]) -> None:
    demos, truth = make_demos(counts)
    clusters = cluster_demos(describe(demos), DiscoverConfig(num_modes=32, num_envs=32), 0)
    assert clusters.by_density
    assert len(clusters.centres) == len(counts)
    assert sorted(clusters.sizes) == sorted(counts)
    pairs = {(int(code), int(way)) for code, way in zip(clusters.cluster, truth, strict=True)}
    assert len(pairs) == len(counts), "each cluster is one way"


def test_where_no_gap_shows_k_means_takes_over_and_says_so() -> None:
    points = torch.rand(200, 24, generator=torch.Generator().manual_seed(0))
    clusters = cluster_demos(points, DiscoverConfig(num_modes=5), 0)
    assert not clusters.by_density
    assert len(clusters.centres) == 5
    assert min(clusters.sizes) > 0


def test_k_means_is_used_where_it_is_asked_for() -> None:
    demos, _ = make_demos((60, 60))
    clusters = cluster_demos(describe(demos), DiscoverConfig(num_modes=4, clustering="kmeans"), 0)
    assert not clusters.by_density
    assert len(clusters.sizes) == 4
    assert sum(clusters.sizes) == 120


# teaching ---------------------------------------------------------------------------------------------

LEFT, RIGHT = -0.6, 0.6
NEAR = 0.15


@pytest.fixture(scope="module")
def base() -> DiffusionPolicy:
    """Cloned from demonstrations that go right in two of three windows and left in the others, wherever they are."""
    chunk, stacked, _ = make_windows()
    torch.manual_seed(0)
    config = PretrainConfig.model_validate(
        {
            "batch_size": 128,
            "learning_rate": 2e-3,
            "policy": PolicyConfig(horizon=2, n_action_steps=1, n_obs_steps=1, hidden_sizes=(32, 32), ddim_steps=20),
        }
    )
    policy = DiffusionPolicy(config.policy, obs_dim=1, action_dim=1)
    policy.fit_normalisers(chunk, stacked)
    cloner = Cloner(policy, config, chunk, stacked, torch.Generator().manual_seed(1))
    for _ in range(400):
        cloner.train_step()
    return cloner.policy.requires_grad_(False).eval()


def make_windows() -> tuple[Tensor, Tensor, Tensor]:
    """Chunks (W, 2), observations (W, 1), and which of the two behaviours it is."""
    generator = torch.Generator().manual_seed(0)
    code = (torch.arange(2000) % 3 == 0).long()
    chunk = torch.where(code == 1, LEFT, RIGHT)[:, None].expand(-1, 2)
    return chunk + 0.03 * torch.randn(2000, 2, generator=generator), torch.rand(2000, 1, generator=generator), code


def teach(base: DiffusionPolicy, steps: int = 300, code: Tensor | None = None) -> DiffusionPolicy:
    """Tells the codes of the windows, or others."""
    chunk, stacked, own = make_windows()
    code = own if code is None else code
    config = TeachingConfig(steps=steps, batch_size=128, learning_rate=1e-3)
    generator = torch.Generator().manual_seed(2)
    return run(Teacher(base, base.normalise_chunk(chunk), base.encode(stacked), code, 2, config, generator), steps)


def run(teacher: Teacher, steps: int) -> DiffusionPolicy:
    while teacher.step < steps:
        teacher.train_step()
    return teacher.finish()


def act(policy: DiffusionPolicy, code: int | None) -> Tensor:
    """First actions (256,) from fresh noise."""
    generator = torch.Generator().manual_seed(3)
    noise, stacked = torch.randn(256, 2, generator=generator), torch.rand(256, 1, generator=generator)
    told = None if code is None else torch.full((256,), code)
    return policy.to_action(policy.sample(noise, policy.encode(stacked), code=told))[:, 0, 0]


def share_near(actions: Tensor, action: float) -> float:
    return float((actions - action).abs().lt(NEAR).float().mean())


def test_the_base_policy_mixes_what_its_codes_tell_apart(base: DiffusionPolicy) -> None:
    before = {name: value.clone() for name, value in base.state_dict().items()}
    mixed = act(base, None)
    assert float((mixed > 0.0).float().mean()) == pytest.approx(2 / 3, abs=0.15)
    coded = teach(base)
    for code, action in enumerate((RIGHT, LEFT)):
        assert share_near(act(coded, code), action) > 0.97
    assert all(torch.equal(value, base.state_dict()[name]) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in coded.parameters())
    assert not coded.training


def test_codes_that_say_nothing_of_the_behaviour_command_nothing(base: DiffusionPolicy) -> None:
    """So it is the codes that tell behaviours apart, and not that the policy was cloned for longer."""
    coded = teach(base, code=torch.arange(2000) % 2)
    for code in range(2):
        assert 0.1 < float((act(coded, code) > 0.0).float().mean()) < 0.9


def test_the_same_seed_teaches_the_same(base: DiffusionPolicy) -> None:
    first, second = teach(base, steps=20), teach(base, steps=20)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_it_goes_on_from_where_it_was(base: DiffusionPolicy) -> None:
    chunk, stacked, code = make_windows()
    config, generators = TeachingConfig(steps=9, batch_size=16), [torch.Generator().manual_seed(2) for _ in range(2)]
    whole, other = (Teacher(base, chunk, base.encode(stacked), code, 2, config, generator) for generator in generators)
    for _ in range(4):
        whole.train_step()
    saved = whole.state()
    generators[1].set_state(generators[0].get_state())
    expected = run(whole, 9).state_dict()
    other.load_state(saved)
    assert other.step == 4
    assert all(torch.equal(value, expected[name]) for name, value in run(other, 9).state_dict().items())


def test_a_loss_that_is_not_finite_is_refused_with_what_to_do(base: DiffusionPolicy) -> None:
    chunk, stacked, code = make_windows()
    with pytest.raises(
        TrainingError, match=r"the loss is nan .* lower discover\.teaching\.learning_rate \(now 0\.0003\)"
    ):
        run(Teacher(base, chunk * torch.nan, stacked, code, 2, TeachingConfig(steps=2), torch.Generator()), 2)
