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
    modes.centres = None if strategy == "unseeded" else torch.randn(3, 4)
    return modes


@pytest.mark.parametrize("strategy", ["seeded", "unseeded", "held"])
def test_round_trip(tmp_path: Path, strategy: str) -> None:
    modes = _modes(strategy)
    modes.save(tmp_path, "GaussianMixture", _policy())
    loaded = load_modes(tmp_path, _policy(), task="GaussianMixture")
    assert loaded.config == modes.config
    assert loaded.findings == modes.findings
    assert (loaded.centres is None) == (strategy == "unseeded")
    if loaded.centres is not None and modes.centres is not None:
        assert torch.equal(loaded.centres, modes.centres)
    weights = modes.networks().state_dict()
    assert loaded.networks().state_dict().keys() == weights.keys()
    assert all(torch.equal(loaded.networks().state_dict()[name], value) for name, value in weights.items())
    assert (loaded.selector is None) == (strategy != "held")


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    _modes("seeded").save(tmp_path, "GaussianMixture", _policy())
    with pytest.raises(ArtifactError, match="expected 'PushT'"):
        load_modes(tmp_path, _policy(), task="PushT")
    other = _policy()
    other.fingerprint = "another"
    with pytest.raises(ArtifactError, match="discovered in another policy"):
        load_modes(tmp_path, other, task="GaussianMixture")
    with pytest.raises(ArtifactError, match="does not fit this policy") as caught:
        load_modes(tmp_path, _policy(horizon=6), task="GaussianMixture")
    assert "\n" not in str(caught.value)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(ArtifactError):
        load_modes(tmp_path, _policy(), task="GaussianMixture")
    (tmp_path / DOCUMENT).unlink()
    with pytest.raises(ArtifactError):
        load_modes(tmp_path, _policy(), task="GaussianMixture")


def test_occupancy_counts_successes_by_the_nearest_behaviour() -> None:
    modes = _modes("seeded")
    points = modes.config.cluster_points
    corners = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    modes.centres = corners.repeat(1, points)
    ends = corners[torch.tensor([0, 1, 1, 2, 2])] + 0.1
    features = ends.expand(4, 5, 2)  # (T + 1, N, 2), standing still
    success = torch.tensor([True, True, True, True, False])
    occupancy = modes.occupancy(features, torch.full((5,), 3), success)
    assert occupancy is not None
    assert occupancy.tolist() == [0.25, 0.5, 0.25]
    assert modes.occupancy(features, torch.full((5,), 3), torch.zeros(5, dtype=torch.bool)) is None


@pytest.mark.parametrize("strategy", ["seeded", "held"])
def test_another_number_of_codes_keeps_the_scale(tmp_path: Path, strategy: str) -> None:
    modes = _modes(strategy)
    modes.inference.fit_scale(torch.randn(5, 6, 2), torch.ones(5, 6, dtype=torch.bool))
    mean, std = modes.inference.mean.clone(), modes.inference.std.clone()
    modes.resize(5, _policy())
    assert modes.num_codes == modes.inference.num_codes == modes.config.num_modes == 5
    assert torch.equal(modes.inference.mean, mean)
    assert torch.equal(modes.inference.std, std)
    if modes.selector is None:
        assert modes.steering is not None
        assert modes.steering.num_codes == 5
    else:
        told = modes.selector.log_prob(torch.zeros(2, _policy().cond_dim), torch.zeros(2, modes.selector.noise_dim))
        assert told.shape == (2, 5)
    modes.save(tmp_path, "GaussianMixture", _policy())
    assert load_modes(tmp_path, _policy(), task="GaussianMixture").num_codes == 5
