"""Time of a behaviour-cloning step: ours against the same mathematics written the usual way.

The usual way is a loop over a map-style dataset's batches, one matrix over the concatenated input with the time
features computed for every row, unfused Adam, an average updated tensor by tensor, and the loss read back at
every step. Both take the same batches, diffusion steps and noise; equal losses and gradients are asserted first.

    python benchmarks/behaviour_cloning.py [--rounds 7] [--steps 40]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.compute import set_matmul
from bmd_pipeline.config.schema import PolicyConfig, PretrainConfig
from bmd_pipeline.policies.bc import EMA_DECAY, Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.networks import time_features

WINDOWS = 50_000
OBS_DIM, ACTION_DIM = 8, 2


def make_policy(config: PretrainConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(config.policy, OBS_DIM, ACTION_DIM)


def plain_loss(policy: DiffusionPolicy, x0: Tensor, cond: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The denoising loss without folding: everything computed per row."""
    signal = policy.alphas_cumprod[t, None]
    x = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    features = time_features(policy.config.denoising_steps)[t]
    hidden = policy.denoiser.first(torch.cat([x, cond, features], dim=1))
    for layer in policy.denoiser.rest:
        hidden = layer(policy.denoiser.activation(hidden))
    return F.mse_loss(hidden, x0)


class PlainLoop:
    """Behaviour cloning as it is usually written."""

    def __init__(self, policy: DiffusionPolicy, config: PretrainConfig, chunk: Tensor, stacked: Tensor) -> None:
        self.policy, self.config = policy, config
        self.average = copy.deepcopy(policy)
        self.optimizer = torch.optim.AdamW(policy.parameters(), lr=config.learning_rate, foreach=False)
        dataset = torch.utils.data.TensorDataset(chunk, stacked)
        self.loader = torch.utils.data.DataLoader(dataset, config.batch_size, shuffle=True)
        self.batches = iter(self.loader)
        self.generator = torch.Generator().manual_seed(1)

    def train_step(self) -> float:
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        chunk, stacked = batch
        t, noise = self.policy.draw_corruption(len(chunk), self.generator)
        loss = plain_loss(self.policy, self.policy.normalise_chunk(chunk), self.policy.encode(stacked), t, noise)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.policy.parameters(), strict=True):
                mean.copy_(EMA_DECAY * mean + (1 - EMA_DECAY) * now)
        return loss.item()


def check_parity(config: PretrainConfig, chunk: Tensor, stacked: Tensor) -> None:
    """Equal losses and gradients on one batch."""
    policies = make_policy(config), make_policy(config)
    t, noise = policies[0].draw_corruption(256, torch.Generator().manual_seed(0))
    losses = [
        policies[0].denoising_loss(chunk[:256], stacked[:256], t, noise),
        plain_loss(policies[1], chunk[:256], stacked[:256], t, noise),
    ]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(*losses)
    for ours, theirs in zip(policies[0].parameters(), policies[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def milliseconds(step: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        step()
    return 1000 * (time.perf_counter() - started) / count


def count_flops(module: nn.Module, batch: int) -> float:
    """Multiply-adds count twice; backward costs twice the forward."""
    return sum(6.0 * batch * layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def main() -> None:
    """Runs the comparison and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = PretrainConfig(policy=PolicyConfig(hidden_sizes=(512, 512, 512)), batch_size=256)
    shape = make_policy(config)
    generator = torch.Generator().manual_seed(2)
    chunk = torch.rand(WINDOWS, shape.noise_dim, generator=generator) * 2 - 1
    stacked = torch.randn(WINDOWS, shape.cond_dim, generator=generator)
    check_parity(config, chunk, stacked)

    ours = Cloner(make_policy(config), config, chunk, stacked, torch.Generator().manual_seed(1))
    plain = PlainLoop(make_policy(config), config, chunk, stacked)
    candidates: dict[str, tuple[str, Callable[[], object]]] = {  # whose kernels multiply, and what steps
        "usual loop": ("mkl", plain.train_step),
        "ours": ("mkl", ours.train_step),
        "ours, cpu_matmul auto": ("auto", ours.train_step),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_ in range(arguments.rounds + 1):
        for name, (kernels, step) in candidates.items():
            set_matmul(torch.device("cpu"), "float32", kernels)
            elapsed = milliseconds(step, arguments.steps)
            if round_ > 0:  # the first round warms up
                times[name].append(elapsed)
    print("MLP 512 x 3, batch 256, one thread")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(times["usual loop"], values, strict=True))
        rate = count_flops(shape.denoiser, 256) / statistics.median(values) / 1e6
        print(f"{name:24} {statistics.median(values):6.2f} ms   {ratio:4.2f} x   {rate:5.0f} GFLOP/s")


if __name__ == "__main__":
    main()
