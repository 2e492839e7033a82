"""A small untrained policy on the point task."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bmd_pipeline.config.schema import DiscoverConfig, PolicyConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import DiscoveredModes, make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.tasks import registry


@pytest.fixture
def policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    config = PolicyConfig(horizon=4, n_action_steps=2, n_obs_steps=2, hidden_sizes=(16, 16))
    made = DiffusionPolicy(config, obs_dim=2, action_dim=2)
    made.fit_normalisers(torch.rand(64, 8) * 2 - 1, torch.randn(64, 4))
    return made.requires_grad_(False).eval()


@pytest.fixture
def env() -> TaskEnv:
    return registry.make_env("GaussianMixture", {}, 12)


@pytest.fixture
def modes_of(policy: DiffusionPolicy) -> Callable[..., DiscoveredModes]:
    def make(**settings: object) -> DiscoveredModes:
        torch.manual_seed(1)
        values = {
            "num_modes": 3,
            "inference": {"hidden_sizes": (16,)},
            "steering": {"hidden_sizes": (16,)},
        }
        return make_modes(DiscoverConfig.model_validate(values | settings), policy, (0, 1))

    return make
