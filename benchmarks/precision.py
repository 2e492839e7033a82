"""Time of a pre-training step in float32, TF32 and bfloat16, against the batch size.

All variants of a size take turns, so that whatever else the machine does hits them alike. The policies see random
data: that changes no speed. Medians of rounds, and ratios to float32 within a round.

    python benchmarks/precision.py [--device cuda] [--batches 256 4096 65536] [--width 512] [--rounds 5] [--steps 50]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from bmd_pipeline.compute import set_matmul
from bmd_pipeline.config.schema import PolicyConfig, PretrainConfig
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy

WINDOWS = 200_000
OBS_DIM, ACTION_DIM = 20, 7
VARIANTS = {"float32": ("float32", "float32"), "tf32": ("tf32", "float32"), "bfloat16": ("float32", "bfloat16")}
"""Matrix kernels and `pretrain.precision` by name."""


def make_cloner(precision: str, batch: int, width: int, device: torch.device) -> Cloner:
    """A policy of three layers in training on random windows."""
    torch.manual_seed(0)
    config = PretrainConfig.model_validate(
        {"precision": precision, "batch_size": batch, "policy": PolicyConfig(hidden_sizes=(width,) * 3)}
    )
    policy = DiffusionPolicy(config.policy, OBS_DIM, ACTION_DIM).to(device)
    generator = torch.Generator(device).manual_seed(1)
    chunk = torch.rand(WINDOWS, policy.noise_dim, generator=generator, device=device) * 2 - 1
    stacked = torch.randn(WINDOWS, policy.cond_dim, generator=generator, device=device)
    policy.fit_normalisers(chunk, stacked)
    return Cloner(policy, config, chunk, stacked, generator)


def milliseconds(cloner: Cloner, steps: int) -> float:
    """Mean time of a step."""
    started = time.perf_counter()
    for _ in range(steps):
        cloner.train_step()
    cloner.take_mean_loss()  # reads from the device, which has to finish first
    return 1000 * (time.perf_counter() - started) / steps


def main() -> None:
    """Runs the comparison and prints one JSON row per batch size and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 4096, 65536])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    for batch in arguments.batches:
        cloners = {
            name: make_cloner(precision, batch, arguments.width, device) for name, (_, precision) in VARIANTS.items()
        }
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for round_ in range(arguments.rounds + 1):
            for name, (kernels, _) in VARIANTS.items():
                set_matmul(device, kernels, "mkl")
                elapsed = milliseconds(cloners[name], arguments.steps)
                if round_ > 0:  # the first round warms up
                    times[name].append(elapsed)
        for name, values in times.items():
            ratio = statistics.median(a / b for a, b in zip(times["float32"], values, strict=True))
            row = {"batch": batch, "width": arguments.width, "what": name, "ms": round(statistics.median(values), 3)}
            print(json.dumps(row | {"x_float32": round(ratio, 2)}), flush=True)


if __name__ == "__main__":
    main()
