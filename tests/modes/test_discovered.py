"""Discovered modes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.config.pretrain import PolicyConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.modes.discovered import DOCUMENT, WEIGHTS, DiscoveredModes, load_modes, make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy


def _policy(horizon: int = 4) -> DiffusionPolicy:
    return DiffusionPolicy(PolicyConfig(horizon=horizon, n_action_steps=1, hidden_sizes=(8,)), 2, 2)


def _modes(strategy: str) -> DiscoveredModes:
    torch.manual_seed(0)
    small = {"hidden_sizes": (8,)}
    config = {"num_modes": 3, "strategy": strategy, "inference": small, "steering": small}
    modes = make_modes(DiscoverConfig.model_validate(config), _policy(), (0, 1))
    modes.findings = {"final_information": 0.5}
    return modes


@pytest.mark.parametrize("strategy", ["seeded", "unseeded", "held"])
def test_round_trip(tmp_path: Path, strategy: str) -> None:
    modes = _modes(strategy)
    modes.save(tmp_path, "GaussianMixture")
    loaded = load_modes(tmp_path, _policy(), task="GaussianMixture")
    assert loaded.config == modes.config
    assert loaded.findings == modes.findings
    weights = modes.networks().state_dict()
    assert loaded.networks().state_dict().keys() == weights.keys()
    assert all(torch.equal(loaded.networks().state_dict()[name], value) for name, value in weights.items())
    assert (loaded.selector is None) == (strategy != "held")


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    _modes("seeded").save(tmp_path, "GaussianMixture")
    with pytest.raises(ArtifactError, match="expected 'PushT'"):
        load_modes(tmp_path, _policy(), task="PushT")
    with pytest.raises(ArtifactError, match="does not fit this policy") as caught:
        load_modes(tmp_path, _policy(horizon=6), task="GaussianMixture")
    assert "\n" not in str(caught.value)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(ArtifactError):
        load_modes(tmp_path, _policy(), task="GaussianMixture")
    (tmp_path / DOCUMENT).unlink()
    with pytest.raises(ArtifactError):
        load_modes(tmp_path, _policy(), task="GaussianMixture")
