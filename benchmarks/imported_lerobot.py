"""Policies that `import-policy` reads from LeRobot against LeRobot's own code: actions for the same noise.

LeRobot's `DiffusionModel` is built with random weights, saved as LeRobot saves it, and imported. Its source file is run
by itself; of the package around it, states need no more than a few names, which are put in their places.

    git clone https://github.com/huggingface/lerobot
    pip install einops diffusers
    python -m benchmarks.imported_lerobot --lerobot lerobot
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import nn

from bmd_pipeline.environments.base import TaskSpec, to_bounds
from bmd_pipeline.policies.diffusion import stack_frames
from bmd_pipeline.policies.lerobot import read_lerobot

STATE, ENVIRONMENT, ACTION, DECISIONS = 2, 5, 2, 64
BASE = {
    "type": "diffusion",
    "n_obs_steps": 2,
    "horizon": 16,
    "n_action_steps": 8,
    "down_dims": [32, 64, 128],
    "kernel_size": 5,
    "n_groups": 8,
    "diffusion_step_embed_dim": 32,
    "use_film_scale_modulation": True,
    "noise_scheduler_type": "DDPM",
    "num_train_timesteps": 20,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "num_inference_steps": None,
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [STATE]},
        "observation.environment_state": {"type": "ENV", "shape": [ENVIRONMENT]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [ACTION]}},
    "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
}
CASES: dict[str, dict[str, Any]] = {
    "DDPM": {},
    "DDPM, one observation": {"n_obs_steps": 1},
    "DDPM, three observations, x0": {"n_obs_steps": 3, "prediction_type": "sample"},
    "DDIM, not clipped": {"noise_scheduler_type": "DDIM", "num_inference_steps": 5, "clip_sample": False},
    "DDIM, clipped": {"noise_scheduler_type": "DDIM", "num_inference_steps": 5},
}


def load_theirs(checkout: Path) -> Any:
    """Their module of the model, with names in the places of the package around it."""
    for scheduler in ("ddim", "ddpm"):  # while nothing stands in for torchvision, which diffusers looks for
        importlib.import_module(f"diffusers.schedulers.scheduling_{scheduler}")
    names = {"ACTION": "action", "OBS_STATE": "observation.state", "OBS_IMAGES": "observation.images"}
    parts: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "lerobot.utils.constants": names | {"OBS_ENV_STATE": "observation.environment_state"},
        "lerobot.utils.import_utils": {"_diffusers_available": True, "require_package": lambda *_, **__: None},
        "lerobot.policies.pretrained": {"PreTrainedPolicy": nn.Module},
        "lerobot.policies.utils": {
            "get_device_from_parameters": lambda module: next(module.parameters()).device,
            "get_dtype_from_parameters": lambda module: next(module.parameters()).dtype,
            "get_output_shape": None,
            "populate_queues": None,
        },
        "lerobot.policies.diffusion.configuration_diffusion": {"DiffusionConfig": object},
    }
    for name, values in parts.items():
        sys.modules[name] = module = ModuleType(name)
        vars(module).update(values)
    path = checkout / "src/lerobot/policies/diffusion/modeling_diffusion.py"
    spec = importlib.util.spec_from_file_location("lerobot.policies.diffusion.modeling_diffusion", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    for package in ("lerobot", "lerobot.utils", "lerobot.policies", "lerobot.policies.diffusion"):
        sys.modules[package] = ModuleType(package)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(name: str, module: Any) -> dict[str, Any]:
    """The largest difference of executed actions, in the units of the environment."""
    values: dict[str, Any] = BASE | CASES[name]
    feature = {key: SimpleNamespace(shape=[size]) for key, size in (("s", STATE), ("e", ENVIRONMENT), ("a", ACTION))}
    config = SimpleNamespace(
        **values,
        robot_state_feature=feature["s"],
        env_state_feature=feature["e"],
        action_feature=feature["a"],
        image_features={},
        compile_model=False,
        gradient_checkpointing=False,
    )
    torch.manual_seed(0)
    theirs = module.DiffusionModel(config).eval()
    stats = {
        "observation.state.min": torch.tensor([-2.0, 1.0]),
        "observation.state.max": torch.tensor([3.0, 1.0]),  # the second is constant
        "observation.environment_state.mean": torch.randn(ENVIRONMENT),
        "observation.environment_state.std": torch.rand(ENVIRONMENT) + 0.5,
        "action.min": torch.tensor([0.0, -1.0]),
        "action.max": torch.tensor([512.0, 1.0]),
    }
    low, high = (0.0, -2.0), (512.0, 2.0)
    spec = TaskSpec("Theirs", STATE + ENVIRONMENT, ACTION, ("x",), ("x", "x"), 100, action_low=low, action_high=high)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_file({f"diffusion.{key}": part for key, part in theirs.state_dict().items()}, folder / "model.safetensors")
        save_file(stats, folder / "policy_preprocessor_step_3_normalizer_processor.safetensors")
        (folder / "config.json").write_text(json.dumps(values))
        ours = read_lerobot(folder, spec)
    steps, past = values["n_obs_steps"], values["n_obs_steps"] - 1
    state = torch.stack([torch.rand(DECISIONS, steps) * 5 - 2, torch.ones(DECISIONS, steps)], dim=2)
    around = torch.randn(DECISIONS, steps, ENVIRONMENT)
    span = torch.tensor([5.0, 1e-8])
    batch = {
        "observation.state": 2 * (state - stats["observation.state.min"]) / span - 1,
        "observation.environment_state": (around - stats["observation.environment_state.mean"])
        / (stats["observation.environment_state.std"] + 1e-8),
    }
    chain = [torch.randn(DECISIONS, values["horizon"], ACTION) for _ in range(len(ours.timesteps))]
    drawn = iter(chain[1:])
    with patch("torch.randn", lambda *_, **__: next(drawn)), torch.no_grad():
        expected = theirs.generate_actions(batch, noise=chain[0])
    expected = (expected + 1) / 2 * (stats["action.max"] - stats["action.min"]) + stats["action.min"]
    frames = torch.cat([state, around], dim=2).flip(1).unbind(dim=1)  # the latest first
    start, *rest = (part.roll(-past, dims=1).flatten(1) for part in chain)
    again = iter(rest)
    with patch("torch.randn", lambda *_, **__: next(again)):
        chunk = ours.sample(start, ours.encode(stack_frames(frames)), torch.Generator())
    found = to_bounds(
        ours.action_normaliser.inverse(chunk.reshape(DECISIONS, -1, ACTION)), *map(torch.tensor, (low, high))
    )
    difference = (found[:, : values["n_action_steps"]] - expected).abs() / (torch.tensor(high) - torch.tensor(low))
    return {
        "case": name,
        "denoising_steps": len(ours.timesteps),
        "difference_as_share_of_range": float(difference.max()),
    }


def main() -> None:
    """Prints one JSON row for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot", type=Path, required=True, help="checkout of LeRobot")
    module = load_theirs(parser.parse_args().lerobot)
    for name in CASES:
        print(json.dumps(compare(name, module)), flush=True)


if __name__ == "__main__":
    main()
