"""Discovered modes on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bmd_pipeline.config.schema import DiscoverConfig, PolicyConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.provenance import require_own
from bmd_pipeline.modes.modes import DOCUMENT, DROPPED, WEIGHTS, CodedClusters, DiscoveredModes, load_modes, make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy


def _policy(horizon: int = 4) -> DiffusionPolicy:
    return DiffusionPolicy(PolicyConfig(horizon=horizon, n_action_steps=1, hidden_sizes=(8,)), 2, 2)


def _modes(form: str) -> DiscoveredModes:
    torch.manual_seed(0)
    small = {"hidden_sizes": (8,)}
    config = {"num_modes": 3, "form": form, "inference": small, "steering": small}
    modes = make_modes(DiscoverConfig.model_validate(config), _policy(), (0, 1))
    modes.findings = {"final_information": 0.5, "success_rate_per_code": [0.5, 1.0, 0.25]}
    if modes.coded is not None:
        modes.clusters = CodedClusters(torch.randn(3, 2 * modes.config.cluster_points), torch.arange(3))
        for table in modes.coded.denoiser.code_tables:
            table.data.normal_()
    return modes


@pytest.mark.parametrize("form", ["coded", "published"])
def test_round_trip(tmp_path: Path, form: str) -> None:
    modes, policy = _modes(form), _policy()
    modes.save(tmp_path, "GaussianMixture", policy)
    require_own([tmp_path / DOCUMENT], "discover", "GaussianMixture")
    with pytest.raises(ArtifactError, match="would be replaced"):
        require_own([tmp_path / DOCUMENT], "evaluate", "GaussianMixture")
    loaded = load_modes(tmp_path, policy, task="GaussianMixture")
    assert loaded.config == modes.config
    assert loaded.findings == modes.findings
    assert (loaded.coded is None, loaded.steering is None) == ((False, True) if form == "coded" else (True, False))
    weights = modes.networks().state_dict()
    assert loaded.networks().state_dict().keys() == weights.keys()
    assert all(torch.equal(loaded.networks().state_dict()[name], value) for name, value in weights.items())
    assert not any(parameter.requires_grad for parameter in loaded.networks().parameters())
    cond, last = torch.randn(4, 5, policy.cond_dim), torch.tensor([3, 1, 2, 3, 3])
    shown = [each.read_codes(cond, last) for each in (modes, loaded)]
    if form == "published":
        assert shown == [None, None]
        assert loaded.acting_policy(policy) is policy
    else:
        assert shown[0] is not None
        assert torch.equal(*shown)
        noise, code = torch.randn(3, policy.noise_dim), torch.arange(3)
        ours, theirs = (each.acting_policy(policy).sample(noise, cond[0, :3], code=code) for each in (modes, loaded))
        assert torch.equal(ours, theirs)
        assert not torch.equal(ours, policy.sample(noise, cond[0, :3]))


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    _modes("coded").save(tmp_path, "GaussianMixture", _policy())
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
    modes = _modes("coded")
    assert modes.clusters is not None
    whole, width = modes.clusters, 2 * modes.config.cluster_points
    wrong = (torch.zeros(3, 2), torch.zeros(width), torch.zeros(4, width))
    for clusters in (
        None,
        *(whole._replace(centres=centres) for centres in wrong),
        whole._replace(codes=whole.codes + 1),
    ):
        modes.clusters = clusters
        modes.save(tmp_path, "GaussianMixture", _policy())
        with pytest.raises(ArtifactError, match="does not fit this policy or this version; run `bmd-pipeline discover"):
            load_modes(tmp_path, _policy(), task="GaussianMixture")


@pytest.mark.parametrize("form", ["coded", "published"])
def test_networks_that_their_file_cannot_fill_are_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    _modes(form).save(tmp_path, "GaussianMixture", _policy())
    document = json.loads((tmp_path / DOCUMENT).read_text())
    document["config"]["inference" if form == "coded" else "steering"]["hidden_sizes"] = [16_384] * 8
    (tmp_path / DOCUMENT).write_text(json.dumps(document))
    monkeypatch.setattr("bmd_pipeline.modes.modes.make_modes", lambda *_: pytest.fail("built"))
    with pytest.raises(ArtifactError, match="does not fit this policy"):
        load_modes(tmp_path, _policy(), task="GaussianMixture")


@pytest.mark.parametrize("version", [1, 2, None])
def test_modes_of_another_version_are_refused(tmp_path: Path, version: int | None) -> None:
    _modes("coded").save(tmp_path, "GaussianMixture", _policy())
    document = json.loads((tmp_path / DOCUMENT).read_text())
    (tmp_path / DOCUMENT).write_text(json.dumps(document | {"schema_version": version}))
    message = f"schema version {version}, this version reads 3; run `bmd-pipeline discover --task GaussianMixture`"
    with pytest.raises(ArtifactError, match=message):
        load_modes(tmp_path, _policy(), task="GaussianMixture")


def test_an_episode_shows_the_behaviour_whose_cluster_is_nearest() -> None:
    """By what was observed, earlier observations of the history apart, and up to each episode's own end."""
    policy = DiffusionPolicy(PolicyConfig(horizon=4, n_action_steps=1, n_obs_steps=2, hidden_sizes=(8,)), 2, 2)
    config = DiscoverConfig.model_validate({"num_modes": 3, "inference": {"hidden_sizes": (8,)}})
    modes = make_modes(config, policy, (0, 1))
    corners = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    modes.clusters = CodedClusters(corners.repeat(1, config.cluster_points), torch.arange(3))
    truth = torch.tensor([0, 1, 1, 2, 2])
    cond = torch.zeros(8, 5, 4)
    cond[..., :2] = corners[truth] + 0.1
    cond[..., 2:] = 5.0  # what a history adds
    last = torch.tensor([7, 3, 5, 7, 1])
    for episode, end in enumerate(last.tolist()):
        cond[end + 1 :, episode, :2] = corners[(truth[episode] + 1) % 3]  # what follows is no part of it
    shown = modes.read_codes(cond, last)
    assert shown is not None
    assert torch.equal(shown, truth)
    modes.clusters = modes.clusters._replace(codes=torch.tensor([1, DROPPED, 0]))
    shown = modes.read_codes(cond, last)
    assert shown is not None
    assert shown.tolist() == [1, DROPPED, DROPPED, 0, 0]
