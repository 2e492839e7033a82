"""DPPO's checkpoints as our policies: the same predictions, the same units, and one line for what can't be read."""

from __future__ import annotations

import itertools
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from bmd_pipeline.config.load import load_config
from bmd_pipeline.environments.base import TaskSpec, to_bounds
from bmd_pipeline.errors import BMDError, ConfigError
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import stack_frames
from bmd_pipeline.policies.dppo import read_dppo
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.imports import import_policy

ROOT = Path(__file__).parents[2]
OBS, ACTION, HORIZON, WIDTH, TIME = 2, 2, 4, 16, 8
SPEC = TaskSpec("Toy", OBS, ACTION, ("x",), ("x", "x"), 10, action_low=(-2.0, 0.0), action_high=(2.0, 4.0))


def draw_weights(n_obs_steps: int, cond_sizes: tuple[int, ...], layer_norm: bool, blocks: int = 2) -> dict[str, Tensor]:
    """Random weights by DPPO's names."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def add(name: str, fan_in: int, fan_out: int) -> None:
        weights[f"{name}.weight"] = torch.randn(fan_out, fan_in, generator=generator) / math.sqrt(fan_in)
        weights[f"{name}.bias"] = torch.randn(fan_out, generator=generator)

    sizes = (n_obs_steps * OBS, *cond_sizes)
    add("time_embedding.1", TIME, 2 * TIME)
    add("time_embedding.3", 2 * TIME, TIME)
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        add(f"cond_mlp.moduleList.{index}.linear_1", fan_in, fan_out)
    add("mlp_mean.layers.0", HORIZON * ACTION + TIME + sizes[-1], WIDTH)
    for block in range(1, blocks + 1):
        for layer in (1, 2):
            add(f"mlp_mean.layers.{block}.l{layer}", WIDTH, WIDTH)
            if layer_norm:
                for part in ("weight", "bias"):
                    weights[f"mlp_mean.layers.{block}.norm{layer}.{part}"] = torch.randn(WIDTH, generator=generator)
    add(f"mlp_mean.layers.{blocks + 1}", WIDTH, HORIZON * ACTION)
    return weights


def predict(
    weights: dict[str, Tensor], x: Tensor, t: int, state: Tensor, activation: Callable[[Tensor], Tensor]
) -> Any:
    """What DPPO's network predicts from chunks x (B, noise_dim) and states (B, n_obs_steps * OBS), the oldest first."""

    def layer(name: str, h: Tensor) -> Tensor:
        return F.linear(h, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def enter(block: int, part: int, h: Tensor) -> Tensor:
        norm = f"mlp_mean.layers.{block}.norm{part}"
        if f"{norm}.weight" in weights:
            h = F.layer_norm(h, (WIDTH,), weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-6)
        return layer(f"mlp_mean.layers.{block}.l{part}", activation(h))

    angles = t * torch.exp(-math.log(10_000) / (TIME // 2 - 1) * torch.arange(TIME // 2))
    time = layer("time_embedding.3", F.mish(layer("time_embedding.1", torch.cat([angles.sin(), angles.cos()]))))
    count = sum(name.startswith("cond_mlp") for name in weights) // 2
    for index in range(count):
        state = layer(f"cond_mlp.moduleList.{index}.linear_1", activation(state) if index else state)
    h = layer("mlp_mean.layers.0", torch.cat([x, time.expand(len(x), -1), state], dim=1))
    blocks = sum(name.endswith(".l1.weight") for name in weights)
    for block in range(1, blocks + 1):
        h = h + enter(block, 2, enter(block, 1, h))
    return layer(f"mlp_mean.layers.{blocks + 1}", h)


def write_bounds(folder: Path, largest: float) -> None:
    bounds = {"obs_min": [-3.0, 0.0], "obs_max": [largest, 1.0], "action_min": [-1.0, 1.0], "action_max": [2.0, 2.0]}
    np.savez(folder / "normalization.npz", **{name: np.array(bound) for name, bound in bounds.items()})


def write_run(
    folder: Path, weights: dict[str, Tensor], *, top: dict[str, Any] | None = None, **changes: Any
) -> tuple[Path, Path, Path]:
    """A checkpoint, its configuration and the bounds of its data, as DPPO writes them."""
    folder.mkdir(exist_ok=True)
    state = {f"network.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 3, "model": {}, "ema": state}, folder / "state_3.pt")
    network = {"_target_": "model.diffusion.mlp_diffusion.DiffusionMLP", "residual_style": True}
    model = {"denoising_steps": "${denoising_steps}", "network": network | changes.pop("network", {}), **changes}
    values = {"obs_dim": OBS, "action_dim": ACTION, "denoising_steps": 5, "horizon_steps": HORIZON, "act_steps": 2}
    text = yaml.safe_dump(values | {"cond_steps": 1, "model": model} | (top or {}))
    (folder / "run.yaml").write_text(text + "logdir: ${oc.env:DPPO_LOG_DIR}/${now:%Y-%m-%d}\n")
    write_bounds(folder, 5.0)
    return folder / "state_3.pt", folder / "run.yaml", folder / "normalization.npz"


@pytest.mark.parametrize(
    ("n_obs_steps", "cond_sizes", "layer_norm", "activation"),
    [(1, (), False, "ReLU"), (3, (), True, "Mish"), (2, (6, 3), True, "ReLU"), (1, (5,), False, "Tanh")],
)
def test_it_predicts_as_their_network_does(
    tmp_path: Path, n_obs_steps: int, cond_sizes: tuple[int, ...], layer_norm: bool, activation: str
) -> None:
    weights = draw_weights(n_obs_steps, cond_sizes, layer_norm)
    files = write_run(tmp_path, weights, top={"cond_steps": n_obs_steps}, network={"activation_type": activation})
    policy = read_dppo(*files, SPEC)
    x, frames = torch.randn(6, policy.noise_dim), torch.rand(n_obs_steps, 6, OBS) * 10 - 5  # the latest frame first
    low, high = torch.tensor([-3.0, 0.0]), torch.tensor([5.0, 1.0])
    state = (2.0 * ((frames - low) / (high - low + 1e-6) - 0.5)).flip(0).transpose(0, 1).flatten(1)
    cond = policy.encode(stack_frames(frames.unbind()))
    known = {"ReLU": F.relu, "Mish": F.mish, "Tanh": torch.tanh}
    for t in range(5):
        found = policy.denoiser(x, policy.denoiser.embed_cond(cond) + policy.denoiser.embed_time()[t])
        torch.testing.assert_close(found, predict(weights, x, t, state, known[activation]), rtol=1e-4, atol=1e-4)


def test_its_chunks_are_in_the_tasks_units(tmp_path: Path) -> None:
    files = write_run(tmp_path, draw_weights(1, (), False))
    policy = read_dppo(*files, SPEC)
    ends = torch.stack([-torch.ones(ACTION), torch.ones(ACTION)])
    low, high = torch.tensor(SPEC.action_low), torch.tensor(SPEC.action_high)
    actions = to_bounds(policy.to_action(ends), low, high)[:, 0]
    torch.testing.assert_close(actions, torch.tensor([[-1.0, 1.0], [2.0, 2.0]]))
    plain = read_dppo(*files[:2], None, SPEC)
    torch.testing.assert_close(to_bounds(plain.to_action(ends), low, high)[:, 0], torch.stack([low, high]))
    seen = torch.tensor([[7.0, -9.0]])
    torch.testing.assert_close(plain.encode(seen), seen)


def test_its_sampler_is_that_of_its_configuration(tmp_path: Path) -> None:
    weights = draw_weights(1, (), False)
    policy = read_dppo(*write_run(tmp_path, weights, denoised_clip_value=0.5), SPEC)
    assert (policy.config.sampler, policy.timesteps) == ("ddpm", (4, 3, 2, 1, 0))
    assert (policy.config.n_action_steps, policy.config.horizon, policy.config.prediction) == (2, HORIZON, "epsilon")
    assert float(policy.chunk_high.max()) == 0.5 == -float(policy.chunk_low.min())
    policy = read_dppo(*write_run(tmp_path, weights, top={"act_steps": None}, use_ddim=True, ddim_steps=2), SPEC)
    assert (policy.config.sampler, policy.timesteps) == ("ddim", (2, 0))
    assert policy.config.n_action_steps == HORIZON


def save(content: object) -> Callable[[Path], None]:
    return lambda folder: torch.save(content, folder / "state_3.pt")


def change(first: Tensor) -> dict[str, Tensor]:
    """Weights with another first layer."""
    weights = draw_weights(1, (), False) | {"mlp_mean.layers.0.weight": first}
    return {f"network.{name}": value for name, value in weights.items()}


def compress(folder: Path) -> None:
    path = folder / "state_3.pt"
    torch.save({"ema": {"network.x": torch.zeros(10**6)}}, path)
    with zipfile.ZipFile(path) as file:
        parts = {entry: file.read(entry) for entry in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def garble(folder: Path) -> None:
    """Compressed bytes that can't be unpacked."""
    path = folder / "normalization.npz"
    np.savez_compressed(path, **np.load(path))
    content = path.read_bytes()
    start = content.index(b".npy") + len(".npy") + 20  # behind the field that follows the name
    path.write_bytes(content[:start] + b"\xff" * 30 + content[start + 30 :])


@pytest.mark.parametrize(
    ("changes", "damage", "message"),
    [
        ({"network": {"_target_": "model.diffusion.unet.Unet1D"}}, None, r"only a DiffusionMLP .*network is Unet1D"),
        ({"network": {"residual_style": False}}, None, r"network is DiffusionMLP without residual_style"),
        ({"network": {"activation_type": "ELU"}}, None, r"activation_type must be one of ReLU, Mish, Tanh"),
        ({"network": {"activation_type": ["Mish"]}}, None, r"activation_type must be one of ReLU, Mish, Tanh"),
        ({"final_action_clip_value": 1.0}, None, r"model\.final_action_clip_value is not supported"),
        ({"denoised_clip_value": None}, None, r"denoised_clip_value must be a number above 0"),
        ({"top": {"obs_dim": 11}}, None, r"obs_dim is 11, that of task Toy is 2"),
        ({"top": {"act_steps": 9}}, None, r"run\.yaml: n_action_steps must be <= horizon \(4\), got 9"),
        ({"top": {"horizon_steps": 8}}, None, r"state_3\.pt is of other sizes than .*run\.yaml says"),
        ({}, save({"model": {"actor_ft.x": torch.ones(1)}}), r"was fine-tuned by DPPO: name one that its pre-training"),
        ({}, save([1, 2]), r"is no checkpoint of DPPO"),
        ({}, save({"ema": {"network.down_modules.0": torch.ones(1)}}), r"has no mlp_mean\.layers\.0\.weight"),
        ({}, save({"ema": {"network.x": torch.tensor([math.nan])}}), r"x must be finite numbers"),
        ({}, save({"ema": {"network.x": torch.zeros(1).expand(10**6, 10**6)}}), r"x must be finite numbers"),
        ({}, save({"ema": {"network.x": torch.eye(2).to_sparse()}}), r"x must be finite numbers"),
        ({}, save({"ema": {"network.x": torch.zeros(1, device="meta")}}), r"x must be finite numbers"),
        ({}, save({"ema": {"network.x": torch.zeros(1, dtype=torch.float8_e4m3fn)}}), r"x must be finite numbers"),
        ({}, save({"ema": {"network.x": torch.ones(1), "x": torch.ones(1)}}), r"a weight is there twice"),
        (
            {},
            save({"ema": change(torch.full((WIDTH, 18), 1e300, dtype=torch.float64))}),
            r"first\.weight would not be finite",
        ),
        ({}, compress, r"state_3\.pt is no checkpoint of DPPO: its parts unfold to more than the file"),
        ({"network": {"residual_style": "False"}}, None, r"residual_style must be true or false, got 'False'"),
        ({"predict_epsilon": "no"}, None, r"predict_epsilon must be true or false, got 'no'"),
        ({}, save({"ema": Path("x")}), r"damaged, or holds more than tensors and plain values"),
        ({}, lambda folder: (folder / "state_3.pt").unlink(), r"state_3\.pt does not exist"),
        ({}, lambda folder: (folder / "run.yaml").write_text("- 1"), r"run\.yaml must hold settings"),
        ({}, lambda folder: (folder / "normalization.npz").write_text("x"), r"must hold arrays of numbers obs_min"),
        (
            {},
            lambda folder: np.savez(folder / "normalization.npz", obs_min=[1]),
            r"must hold arrays of numbers obs_min",
        ),
        (
            {},
            lambda folder: np.savez_compressed(folder / "normalization.npz", obs_min=np.zeros(10**6)),
            r"normalization\.npz must hold arrays .*: an array is larger than bounds are",
        ),
        ({}, lambda folder: write_bounds(folder, 1e300), r"normalization\.npz is damaged: .* would not be finite"),
        ({}, garble, r"normalization\.npz must hold arrays of numbers obs_min"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, changes: dict[str, Any], damage: Callable[[Path], None] | None, message: str
) -> None:
    files = write_run(tmp_path, draw_weights(1, (), False), **changes)
    if damage is not None:
        damage(tmp_path)
    with pytest.raises(BMDError, match=message) as caught:
        read_dppo(*files, SPEC)
    assert "\n" not in str(caught.value)


def test_no_network_is_built_that_the_file_cannot_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_run(tmp_path, draw_weights(1, (), False))
    save({"ema": change(torch.zeros(16_384, 0))})(tmp_path)
    built: list[object] = []
    for module in ("conversion", "dppo"):
        monkeypatch.setattr(f"bmd_pipeline.policies.{module}.DiffusionPolicy", lambda *of: built.append(of))
    with pytest.raises(BMDError, match="is of other sizes"):
        read_dppo(*files, SPEC)
    assert not built


def test_import_policy_brings_it_once(tmp_path: Path) -> None:
    config = load_config("GaussianMixture", preset="smoke", config_dir=ROOT / "config")
    checkpoint, settings, bounds = write_run(tmp_path / "dppo", draw_weights(1, (), False))
    output, reporter = tmp_path / "policy", Reporter("quiet")
    with pytest.raises(ConfigError, match="says nothing of its network: name DPPO's YAML file"):
        import_policy(config, policy=checkpoint, output=output, reporter=reporter)
    with pytest.raises(ConfigError, match="--dppo-config and --normalisation go with a checkpoint"):
        import_policy(config, policy=tmp_path, output=output, reporter=reporter, dppo_config=settings)
    assert not output.exists()
    named = {"policy": checkpoint, "dppo_config": settings, "normalisation": bounds}
    import_policy(config, **named, output=output, reporter=reporter)
    record = json.loads((output / "run.json").read_text())
    assert record["imported"] is True
    assert set(record["inputs"]) == {"checkpoint", "dppo_config", "normalisation"}
    policy = load_policy(output, task="GaussianMixture", obs_dim=OBS, action_dim=ACTION)
    assert policy.config.residual_network is not None
    before = (output / "run.json").read_bytes()
    import_policy(config, **named, output=output, reporter=reporter)
    assert (output / "run.json").read_bytes() == before
    import_policy(config, policy=checkpoint, dppo_config=settings, output=output, reporter=reporter)
    assert set(json.loads((output / "run.json").read_text())["inputs"]) == {"checkpoint", "dppo_config"}
