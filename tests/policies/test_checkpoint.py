import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, load_weights, save_weights
from bmd_pipeline.io.layout import POLICY_FILE
from bmd_pipeline.io.provenance import require_own
from bmd_pipeline.policies.checkpoint import SETTINGS_FILE, load_policy, save_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy


@pytest.fixture
def policy() -> DiffusionPolicy:
    policy = DiffusionPolicy(PolicyConfig(hidden_sizes=(8, 8), prediction="epsilon", ddim_steps=3), 3, 2)
    policy.fit_normalisers(torch.randn(20, policy.noise_dim), torch.randn(20, policy.cond_dim))
    return policy


def test_comes_back_bit_for_bit_with_nothing_but_its_folder(tmp_path: Path, policy: DiffusionPolicy) -> None:
    save_policy(policy, tmp_path, "Toy")
    loaded = load_policy(tmp_path, task="Toy", obs_dim=3, action_dim=2)
    assert loaded.config == policy.config
    for name, tensor in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    noise, stacked = torch.randn(4, policy.noise_dim), torch.randn(4, policy.cond_dim)
    assert torch.equal(loaded.sample(noise, loaded.encode(stacked)), policy.sample(noise, policy.encode(stacked)))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_it_says_which_stage_wrote_it(tmp_path: Path, policy: DiffusionPolicy) -> None:
    save_policy(policy, tmp_path, "Toy")
    require_own([tmp_path / SETTINGS_FILE], "pretrain", "Toy")
    with pytest.raises(ArtifactError, match="`bmd-pipeline verdict --task Toy` did not write it"):
        require_own([tmp_path / SETTINGS_FILE], "verdict", "Toy")


def test_same_policy_same_bytes(tmp_path: Path, policy: DiffusionPolicy) -> None:
    for name in ("a", "b"):
        save_policy(policy, tmp_path / name, "Toy")
    for file in (POLICY_FILE, SETTINGS_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_refuses_another_task_or_other_sizes(tmp_path: Path, policy: DiffusionPolicy) -> None:
    save_policy(policy, tmp_path, "Toy")
    with pytest.raises(ArtifactError, match="trained for Toy, not for PushT"):
        load_policy(tmp_path, task="PushT")
    with pytest.raises(ArtifactError, match="obs_dim 3, the task has 8"):
        load_policy(tmp_path, obs_dim=8)
    with pytest.raises(ArtifactError, match="action_dim 2, the task has 7"):
        load_policy(tmp_path, action_dim=7)


def edit(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / SETTINGS_FILE
        settings = json.loads(path.read_text())
        if value is None:
            del settings[key]
        else:
            settings[key] = value
        path.write_text(json.dumps(settings))

    return damage


def flip_bit(folder: Path) -> None:
    path = folder / POLICY_FILE
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    path = folder / POLICY_FILE
    path.write_bytes(path.read_bytes()[:-10])


def drop_tensor(folder: Path) -> None:
    path = folder / POLICY_FILE
    tensors = load_weights(path)
    del tensors["obs_normaliser.mean"]
    save_weights(path, tensors)
    edit("weights_sha256", hash_file(path))(folder)


def change_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / POLICY_FILE
        tensors = load_weights(path)
        save_weights(path, tensors | {name: change(tensors[name])})
        edit("weights_sha256", hash_file(path))(folder)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_tensor("obs_normaliser.std", torch.zeros_like), r"obs_normaliser\.std must be floats above 0"),
        (change_tensor("action_normaliser.std", torch.neg), r"action_normaliser\.std must be floats above 0"),
        (change_tensor("chunk_low", torch.Tensor.long), "chunk_low must be floats"),
        (edit("schema_version", 1), "schema version 1, this release reads 2; train it again"),
        (edit("schema_version", None), "schema version None"),
        (edit("obs_dim", None), "damaged .obs_dim is missing"),
        (edit("action_low", None), "damaged .action_low is missing"),
        (edit("action_high", 3), "damaged .*not iterable"),
        (edit("policy", {"horizon": 0}), "damaged .policy.horizon"),
        (edit("policy", {"unknown": 1}), "damaged .policy.unknown"),
        (edit("policy", {"horizon": 4, "hidden_sizes": [8, 8]}), "does not fit the settings"),
        (flip_bit, "is not what policy.json describes"),
        (truncate, "damaged"),
        (drop_tensor, "does not fit the settings"),
        (lambda folder: (folder / POLICY_FILE).unlink(), "is missing"),
        (lambda folder: (folder / SETTINGS_FILE).unlink(), "is missing"),
        (lambda folder: (folder / SETTINGS_FILE).write_text("{"), "damaged"),
    ],
)
def test_damage_is_one_line(
    tmp_path: Path, policy: DiffusionPolicy, damage: Callable[[Path], None], message: str
) -> None:
    save_policy(policy, tmp_path, "Toy")
    damage(tmp_path)
    with pytest.raises(ArtifactError, match=message) as caught:
        load_policy(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("obs_dim", 10**9),
        ("action_dim", 10**9),
        ("policy", {"hidden_sizes": [16_384] * 8}),
    ],
)
def test_a_network_that_its_file_cannot_fill_is_not_built(
    tmp_path: Path, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    save_policy(policy, tmp_path, "Toy")
    edit(key, value)(tmp_path)
    monkeypatch.setattr("bmd_pipeline.policies.checkpoint.DiffusionPolicy", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(ArtifactError, match="does not fit the settings"):
        load_policy(tmp_path)


@pytest.mark.parametrize("value", [0, -1, 3.0, "3", True, [3]])
def test_sizes_are_whole_numbers(tmp_path: Path, policy: DiffusionPolicy, value: object) -> None:
    save_policy(policy, tmp_path, "Toy")
    edit("obs_dim", value)(tmp_path)
    with pytest.raises(ArtifactError, match=r"damaged \(sizes must be whole numbers above 0"):
        load_policy(tmp_path)
