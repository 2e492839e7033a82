"""Policies that `import-policy` reads from DPPO's checkpoints against DPPO's own code: samples for the same noise.

DPPO's classes are built as its configuration files say, with random weights, saved as its pre-training saves them, and
imported. Observations and actions go through the scales of a normalization.npz on both sides.

    git clone https://github.com/irom-princeton/dppo
    pip install einops
    python -m benchmarks.imported_dppo --dppo dppo
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec, to_bounds
from bmd_pipeline.policies.diffusion import DiffusionPolicy, stack_frames
from bmd_pipeline.policies.dppo import read_dppo

DECISIONS = 256


def find_configurations(dppo: Path) -> Iterator[Path]:
    """DPPO's files of training and evaluation of diffusion MLPs that see states."""
    for kind in ("pretrain", "eval"):
        yield from sorted(dppo.glob(f"cfg/*/{kind}/**/*diffusion_mlp*.yaml"))


def resolve(values: dict[str, Any], found: Any) -> Any:
    """A value of a configuration without references, as hydra resolves them."""
    if isinstance(found, dict):
        return {name: resolve(values, part) for name, part in found.items()}
    if isinstance(found, str) and found.startswith("${eval:"):
        return values["obs_dim"] * values["cond_steps"]
    if isinstance(found, str) and found.startswith("${"):
        return values.get(found[2:-1])
    return found


def make_theirs(values: dict[str, Any]) -> Any:
    """DPPO's model with random weights."""
    from model.diffusion.diffusion import DiffusionModel  # type: ignore[import-not-found]
    from model.diffusion.mlp_diffusion import DiffusionMLP  # type: ignore[import-not-found]

    torch.manual_seed(0)
    settings = {name: part for name, part in values["model"].items() if name not in ("_target_", "network_path")}
    network = resolve(values, settings.pop("network"))
    network.pop("_target_")
    settings = resolve(values, settings) | {"device": "cpu", "randn_clip_value": 100.0}

    class Model(DiffusionModel):  # type: ignore[misc]
        """Theirs, whose `forward` passes an argument that its own `p_mean_var` doesn't take."""

        def p_mean_var(self, *, deterministic: bool, **inputs: Any) -> Any:
            return super().p_mean_var(**inputs)

    model = Model(network=DiffusionMLP(**network), **settings)
    with torch.no_grad():  # larger than they start, so that chunks meet their bounds
        for name, weight in model.network.named_parameters():
            if name.startswith(f"mlp_mean.layers.{len(model.network.mlp_mean.layers) - 2}"):
                weight.mul_(8.0)
    return model


def compare(configuration: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The largest differences of normalised chunks, and of actions in the environment's units."""
    obs_dim, action_dim, steps = values["obs_dim"], values["action_dim"], values["cond_steps"]
    low, high = (-1.0,) * action_dim, (1.0,) * action_dim
    spec = TaskSpec("Theirs", obs_dim, action_dim, ("x",), ("x", "x"), 100, action_low=low, action_high=high)
    rng = np.random.default_rng(0)
    bounds = {"obs_min": -rng.uniform(1, 3, obs_dim), "obs_max": rng.uniform(1, 3, obs_dim)}
    bounds |= {"action_min": -rng.uniform(0.5, 1, action_dim), "action_max": rng.uniform(0.5, 1, action_dim)}
    theirs = make_theirs(values)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, normalisation = Path(folder, "state_1.pt"), Path(folder, "normalization.npz")
        torch.save({"epoch": 1, "model": theirs.state_dict(), "ema": theirs.state_dict()}, checkpoint)
        np.savez(normalisation, **bounds)
        ours = read_dppo(checkpoint, configuration, normalisation, spec)
    chain = [torch.randn(DECISIONS, ours.config.horizon, action_dim) for _ in range(len(ours.timesteps) + 1)]
    frames = [torch.rand(DECISIONS, obs_dim) * 4 - 2 for _ in range(steps)]  # the latest first
    state = np.stack([frame.double().numpy() for frame in reversed(frames)], axis=1)
    state = 2 * ((state - bounds["obs_min"]) / (bounds["obs_max"] - bounds["obs_min"] + 1e-6) - 0.5)
    drawn = iter(chain)
    with patch("torch.randn", lambda *_, **__: next(drawn)), patch("torch.randn_like", lambda *_: next(drawn)):
        expected = theirs(cond={"state": torch.from_numpy(state).float()}).trajectories
    found = sample(ours, chain, frames).reshape(expected.shape)
    unit = (expected.numpy() + 1) / 2
    actions = unit * (bounds["action_max"] - bounds["action_min"]) + bounds["action_min"]
    executed = to_bounds(ours.to_action(found.flatten(1)), torch.tensor(low), torch.tensor(high))
    return {
        "configuration": "/".join(configuration.parts[-4:]),
        "sampler": ours.config.sampler,
        "denoising_steps": len(ours.timesteps),
        "at_bounds": float((expected.abs() > 0.999).float().mean()),
        "chunk_difference": float((found - expected).abs().max()),
        "action_difference": float((executed - torch.from_numpy(actions).float()).abs().max()),
    }


def sample(policy: DiffusionPolicy, chain: list[Tensor], frames: list[Tensor]) -> Tensor:
    """Our chunk for the noise that they draw: the start, then that of each step."""
    cond = policy.encode(stack_frames(frames))
    start, *rest = (part.flatten(1) for part in chain)
    drawn = iter(rest)
    with patch("torch.randn", lambda *_, **__: next(drawn)):
        return policy.sample(start, cond, torch.Generator())


def main() -> None:
    """Prints one JSON row for each configuration of DPPO's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dppo", type=Path, required=True, help="checkout of DPPO")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.dppo))
    for configuration in find_configurations(arguments.dppo):
        values = yaml.safe_load(configuration.read_text())
        if not values["model"]["network"]["_target_"].endswith(".DiffusionMLP"):
            continue  # of images
        print(json.dumps(compare(configuration, values)), flush=True)


if __name__ == "__main__":
    main()
