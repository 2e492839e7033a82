"""LeRobot's diffusion policies as ours: the same predictions, the same units, and one line for what can't be read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.environments.base import TaskSpec, to_bounds
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import load_weights, save_weights
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy, stack_frames
from bmd_pipeline.policies.lerobot import read_lerobot
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.imports import import_policy

ROOT = Path(__file__).parents[2]
STATE, ENV, ACTION, HORIZON, STEPS, TIME, CHANNELS = 1, 1, 2, 8, 2, 8, (8, 16)
SPEC = TaskSpec("Toy", STATE + ENV, ACTION, ("x",), ("x", "x"), 10, action_low=(-2.0, 0.0), action_high=(2.0, 4.0))
STATS = {
    "observation.state.min": torch.tensor([-3.0]),
    "observation.state.max": torch.tensor([5.0]),
    "observation.environment_state.mean": torch.tensor([1.0]),
    "observation.environment_state.std": torch.tensor([2.0]),
    "action.min": torch.tensor([-1.0, 1.0]),
    "action.max": torch.tensor([2.0, 2.0]),
}
SCALES = "policy_preprocessor_step_3_normalizer_processor.safetensors"


def draw_weights() -> dict[str, Tensor]:
    """Random weights by LeRobot's names."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def add(name: str, *shape: int, outputs: int | None = None) -> None:
        fan_in = math.prod(shape[1:]) or 1
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
        weights[f"{name}.bias"] = torch.randn(outputs or shape[0], generator=generator)

    def block(name: str, fan_in: int, fan_out: int) -> None:
        for conv, seen in (("conv1", fan_in), ("conv2", fan_out)):
            add(f"{name}.{conv}.block.0", fan_out, seen, 5)
            add(f"{name}.{conv}.block.1", fan_out)
        add(f"{name}.cond_encoder.1", 2 * fan_out, TIME + STEPS * (STATE + ENV))
        if fan_in != fan_out:
            add(f"{name}.residual_conv", fan_out, fan_in, 1)

    low, high = CHANNELS
    add("diffusion_step_encoder.1", 4 * TIME, TIME)
    add("diffusion_step_encoder.3", TIME, 4 * TIME)
    block("down_modules.0.0", ACTION, low)
    block("down_modules.0.1", low, low)
    add("down_modules.0.2", low, low, 3)
    block("down_modules.1.0", low, high)
    for name in ("down_modules.1.1", "mid_modules.0", "mid_modules.1"):
        block(name, high, high)
    block("up_modules.0.0", 2 * high, low)
    block("up_modules.0.1", low, low)
    add("up_modules.0.2", low, low, 4)
    add("final_conv.0.block.0", low, low, 5)
    add("final_conv.0.block.1", low)
    add("final_conv.1", ACTION, low, 1)
    return weights


def predict(weights: dict[str, Tensor], x: Tensor, t: int, cond: Tensor) -> Tensor:
    """What LeRobot's U-Net predicts from chunks x (B, HORIZON, ACTION) and observations (B, ·), the oldest first."""

    def part(name: str) -> tuple[Tensor, Tensor]:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def convolve(name: str, h: Tensor) -> Tensor:
        return F.mish(F.group_norm(F.conv1d(h, *part(f"{name}.block.0"), padding=2), 8, *part(f"{name}.block.1")))

    def block(name: str, h: Tensor) -> Tensor:
        scale, shift = F.linear(F.mish(context), *part(f"{name}.cond_encoder.1"))[..., None].chunk(2, dim=1)
        around = F.conv1d(h, *part(f"{name}.residual_conv")) if f"{name}.residual_conv.weight" in weights else h
        return convolve(f"{name}.conv2", scale * convolve(f"{name}.conv1", h) + shift) + around

    angles = t * torch.exp(-math.log(10_000) / (TIME // 2 - 1) * torch.arange(TIME // 2))
    time = F.mish(F.linear(torch.cat([angles.sin(), angles.cos()]), *part("diffusion_step_encoder.1")))
    time = F.linear(time, *part("diffusion_step_encoder.3"))
    context = torch.cat([time.expand(len(x), -1), cond], dim=1)
    h = x.transpose(1, 2)
    h = block("down_modules.0.1", block("down_modules.0.0", h))
    h = F.conv1d(h, *part("down_modules.0.2"), stride=2, padding=1)
    seen = h = block("down_modules.1.1", block("down_modules.1.0", h))
    h = block("mid_modules.1", block("mid_modules.0", h))
    h = block("up_modules.0.1", block("up_modules.0.0", torch.cat([h, seen], dim=1)))
    h = F.conv_transpose1d(h, *part("up_modules.0.2"), stride=2, padding=1)
    return F.conv1d(convolve("final_conv.0", h), *part("final_conv.1")).transpose(1, 2)


def write_policy(folder: Path, **changes: Any) -> Path:
    """A policy as LeRobot saves it."""
    folder.mkdir(exist_ok=True)
    values = {
        "type": "diffusion",
        "n_obs_steps": STEPS,
        "horizon": HORIZON,
        "n_action_steps": 4,
        "down_dims": list(CHANNELS),
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": TIME,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 5,
        "num_inference_steps": None,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "input_features": {
            "observation.environment_state": {"type": "ENV", "shape": [ENV]},
            "observation.state": {"type": "STATE", "shape": [STATE]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [ACTION]}},
        "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
    }
    (folder / "config.json").write_text(json.dumps(values | changes))
    save_weights(folder / "model.safetensors", {f"diffusion.unet.{k}": v for k, v in draw_weights().items()})
    save_weights(folder / SCALES, STATS)
    return folder


def test_it_predicts_as_their_network_does(tmp_path: Path) -> None:
    policy = read_lerobot(write_policy(tmp_path / "theirs"), SPEC)
    frames = torch.rand(STEPS, 6, 2) * 6 - 3  # the latest first: state, environment
    seen = torch.stack([(frames[..., 0] + 3) / 4 - 1, (frames[..., 1] - 1) / 2], dim=2)
    cond = policy.encode(stack_frames(frames.unbind()))
    x = torch.randn(6, HORIZON, ACTION)  # as theirs, beginning with the action of the earlier observation
    for t in range(5):
        context = policy.denoiser.embed_cond(cond) + policy.denoiser.embed_time()[t]
        found = policy.denoiser(x.roll(-1, dims=1).flatten(1), context).reshape(x.shape)
        expected = predict(draw_weights(), x, t, seen.flip(0).transpose(0, 1).flatten(1))
        torch.testing.assert_close(found, expected.roll(-1, dims=1), rtol=1e-4, atol=1e-4)


def test_its_settings_and_units_are_taken(tmp_path: Path) -> None:
    policy = read_lerobot(write_policy(tmp_path / "theirs"), SPEC)
    assert (policy.config.sampler, policy.timesteps, policy.config.n_action_steps) == ("ddpm", (4, 3, 2, 1, 0), 4)
    ends = torch.stack([-torch.ones(ACTION), torch.ones(ACTION)])
    actions = to_bounds(policy.to_action(ends), torch.tensor(SPEC.action_low), torch.tensor(SPEC.action_high))
    torch.testing.assert_close(actions[:, 0], torch.tensor([[-1.0, 1.0], [2.0, 2.0]]))
    ddim = {"noise_scheduler_type": "DDIM", "num_inference_steps": 2, "clip_sample": False}
    policy = read_lerobot(write_policy(tmp_path / "theirs", **ddim), SPEC)
    assert (policy.config.sampler, policy.timesteps, float(policy.chunk_high[0])) == ("ddim", (2, 0), 1e6)


def test_it_is_imported_and_read_again(tmp_path: Path) -> None:
    config = load_config("GaussianMixture", preset="smoke", config_dir=ROOT / "config")
    output = tmp_path / "policy"
    import_policy(config, policy=write_policy(tmp_path / "theirs"), output=output, reporter=Reporter("quiet"))
    policy = load_policy(output, task="GaussianMixture", obs_dim=2, action_dim=2)
    assert isinstance(policy, DiffusionPolicy)
    chunk = policy.sample(torch.randn(3, policy.noise_dim), policy.encode(torch.randn(3, 4)), torch.Generator())
    assert chunk.shape == (3, HORIZON * ACTION)
    assert set(json.loads((output / "run.json").read_text())["inputs"]) == {"config.json", "model.safetensors", SCALES}


@pytest.mark.parametrize(("clip", "told"), [(True, 1), (False, 0)])
def test_samples_that_are_not_theirs_are_told(tmp_path: Path, clip: bool, told: int) -> None:
    config = load_config("GaussianMixture", preset="smoke", config_dir=ROOT / "config")
    folder = write_policy(tmp_path / "theirs", noise_scheduler_type="DDIM", num_inference_steps=2, clip_sample=clip)
    reporter = Reporter("quiet")
    import_policy(config, policy=folder, output=tmp_path / "policy", reporter=reporter)
    assert sum("where DDIM clips them" in warning for warning in reporter.warnings) == told


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def shrink(folder: Path) -> None:
    weights = load_weights(folder / "model.safetensors")
    save_weights(folder / "model.safetensors", dict(list(weights.items())[:-1]))


LAST = "diffusion.unet.final_conv.1.bias"


def add_weights(**others: Tensor) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_weights(folder / "model.safetensors", load_weights(folder / "model.safetensors") | others)

    return damage


def turn_over(folder: Path) -> None:
    save_weights(folder / SCALES, {**STATS, "action.max": STATS["action.min"] - 1})


IMAGES = {"observation.image": {"type": "VISUAL", "shape": [3, 96, 96]}, "observation.state": {"shape": [2]}}


@pytest.mark.parametrize(
    ("changes", "damage", "message"),
    [
        ({"type": "act"}, None, r"only diffusion policies of .* can be imported; it is of type 'act'"),
        ({"input_features": IMAGES}, None, r"can be imported; it sees observation\.image"),
        ({"input_features": None}, None, r"is no configuration of LeRobot's"),
        ({"output_features": {"action": {"shape": [7]}}}, None, r"its actions have 7 components, those of task Toy 2"),
        ({"n_groups": 4}, None, r"n_groups must be 8, got 4"),
        ({"num_inference_steps": 2}, None, r"DDPM must take all of num_train_timesteps \(5\), got 2"),
        ({"n_action_steps": 8}, None, r"n_action_steps must be <= horizon - unet.past_steps \(7\), got 8"),
        ({"n_obs_steps": "2"}, None, r"config\.json is damaged"),
        ({"down_dims": [8, 24]}, None, r"model\.safetensors does not hold the U-Net that config\.json describes"),
        ({"normalization_mapping": {"STATE": "QUANTILES"}}, None, r"must be one of MIN_MAX, MEAN_STD; got QUANTILES"),
        ({"normalization_mapping": {"STATE": []}}, None, r"must be one of MIN_MAX, MEAN_STD; got \[\]"),
        ({"normalization_mapping": None}, None, r"normalization_mapping must be a group, got None"),
        ({"clip_sample_range": -1.0}, None, r"clip_sample_range must be a number above 0, got -1\.0"),
        ({"down_dims": [8, 16384], "kernel_size": 31}, None, r"does not hold the U-Net that config\.json describes"),
        ({"prediction_type": "v_prediction"}, None, r"prediction_type must be epsilon or sample, got 'v_prediction'"),
        ({"noise_scheduler_type": ["DDIM"]}, None, r"noise_scheduler_type must be DDPM or DDIM, got \['DDIM'\]"),
        ({"clip_sample": "False"}, None, r"clip_sample must be True or False, got 'False'"),
        ({"output_features": {"action": {"shape": [2.9]}}}, None, r"is no configuration of LeRobot's"),
        ({}, add_weights(**{"final_conv.1.bias": torch.zeros(2)}), r"does not hold the U-Net"),
        ({}, add_weights(**{LAST: torch.zeros(2, dtype=torch.bool)}), r"does not hold the U-Net"),
        (
            {},
            add_weights(**{LAST: torch.zeros(2, dtype=torch.float8_e4m3fn)}),
            r"type torch\.float8_e4m3fn, which can't",
        ),
        (
            {},
            add_weights(**{LAST: torch.full((2,), 1e300, dtype=torch.float64)}),
            r"model\.safetensors: .* is not finite",
        ),
        ({}, turn_over, r"min and max of action don't belong together"),
        ({}, drop(SCALES), r"must hold one policy_preprocessor_step_.*migrate_policy_normalization"),
        ({}, drop("model.safetensors"), r"model\.safetensors is missing"),
        ({}, shrink, r"does not hold the U-Net"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, changes: dict[str, Any], damage: Callable[[Path], None] | None, message: str
) -> None:
    folder = write_policy(tmp_path / "theirs", **changes)
    if damage is not None:
        damage(folder)
    with pytest.raises(ArtifactError, match=message) as caught:
        read_lerobot(folder, SPEC)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_its_folder_is_named(tmp_path: Path, name: str) -> None:
    for other in {"config.json", "model.safetensors"} - {name}:
        (tmp_path / other).touch()
    os.mkfifo(tmp_path / name)
    config = load_config("PushT", preset="smoke")
    with pytest.raises(ArtifactError, match=rf"{name} is no regular file but a folder, a pipe"):
        import_policy(config, policy=tmp_path, output=tmp_path / "policy", reporter=Reporter("quiet"))


def test_a_u_net_learns_codes_as_others_do() -> None:
    torch.manual_seed(0)
    shape = {
        "horizon": HORIZON,
        "n_action_steps": 4,
        "unet": {"down_sizes": CHANNELS, "time_dim": TIME, "past_steps": 1},
    }
    policy = DiffusionPolicy(PolicyConfig.model_validate(shape), obs_dim=2, action_dim=2)
    coded = policy.with_codes(3)
    x, cond, code = torch.randn(6, policy.noise_dim), torch.randn(6, policy.cond_dim), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(coded.condition(cond, code)(x, 3), policy.condition(cond)(x, 3))
    t, noise = coded.draw_corruption(6, torch.Generator())
    coded.denoising_loss(x, cond, t, noise, code).backward()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in coded.parameters())
