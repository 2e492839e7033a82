"""Behaviour cloning of a diffusion policy: training windows, the state of training and its step.

Data stays in memory as normalised tensors and a batch is one index gather; nothing in a step waits for a
number to come back from the device.
"""

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.config.schema import PolicyConfig, PretrainConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import DivergenceError
from bmd_pipeline.io.progress import add_prefix, pack_optimizer, take_prefix, unpack_optimizer
from bmd_pipeline.policies.diffusion import DiffusionPolicy, frame_rows, stack_frames
from bmd_pipeline.policies.networks import EMA, descend

# ---- Training windows: what the policy sees at a step, and the chunk of actions it should answer with ----


@dataclass(frozen=True)
class Windows:
    """One window per demonstrated step, gathered: indexing rows is all that training has to do.

    A chunk that reaches beyond its episode's end is filled with the last action.
    """

    stacked: Tensor  # (W, n_obs_steps · obs_dim) stacked observations
    chunk: Tensor  # (W, horizon · action_dim) the actions from that step on

    def __len__(self) -> int:
        return len(self.chunk)

    def to(self, device: torch.device) -> Self:
        """The same windows on a device."""
        return type(self)(self.stacked.to(device), self.chunk.to(device))


def make_windows(demos: Demos, config: PolicyConfig, episodes: NDArray[np.int64] | None = None) -> Windows:
    """Cuts demonstrations into windows, one starting at each step of the given episodes, in this order; None: all."""
    chosen = np.arange(demos.num_episodes) if episodes is None else episodes
    firsts, lasts = demos.episode_starts[chosen], demos.episode_ends[chosen]
    lengths = lasts - firsts
    starts = torch.from_numpy(np.repeat(firsts, lengths))  # (W,) first row of each window's episode
    ends = torch.from_numpy(np.repeat(lasts, lengths))  # (W,) row after its last
    offsets = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = starts + torch.from_numpy(np.arange(len(starts)) - offsets)  # (W,) current row
    obs, action = torch.from_numpy(demos.obs), torch.from_numpy(demos.action)
    frames = frame_rows(starts, rows, config.n_obs_steps, config.obs_stride)
    stacked = stack_frames([obs[index] for index in frames])
    steps = torch.arange(config.horizon)
    past = config.unet.past_steps if config.unet else 0  # actions of earlier steps, which stand last
    steps = torch.where(steps < config.horizon - past, steps, steps - config.horizon)
    chunk = action[torch.clamp(rows[:, None] + steps, starts[:, None], ends[:, None] - 1)]  # (W, horizon, action_dim)
    return Windows(stacked, chunk.flatten(1))


def split_episodes(
    num_episodes: int, held_out: float, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of training and of held-out episodes, each in rising order.

    The share `held_out` is rounded, but one episode is always left to train on.
    """
    count = min(round(held_out * num_episodes), num_episodes - 1)
    order = torch.randperm(num_episodes, generator=generator, device=generator.device).cpu().numpy()
    return np.sort(order[count:]), np.sort(order[:count])


# ---- Training ----

WEIGHT_DECAY = 1e-4
EMA_DECAY = 0.995
"""Decay per step of the moving average of the weights, which is what is kept: it looks back on about 200 steps."""
VALIDATION_BATCH = 4096
VALIDATION_DRAWS = 4
"""Diffusion steps and noises drawn per validation window; the same ones at every validation."""
VALIDATION_WINDOWS = 1 << 14
"""Held-out windows that a validation looks at, evenly spaced: of ten million transitions all of them would take longer
than training between two log lines."""


@dataclass
class Cloner:
    """Trains a policy on windows."""

    policy: DiffusionPolicy  # its normalisers must be fitted
    config: PretrainConfig
    chunk: InitVar[Tensor]  # (W, noise_dim) raw actions of the training windows
    stacked: InitVar[Tensor]  # (W, cond_dim) their stacked observations
    generator: torch.Generator  # draws batches, diffusion steps and noise, on the policy's device

    def __post_init__(self, chunk: Tensor, stacked: Tensor) -> None:
        self.ema = EMA(self.policy, EMA_DECAY)
        self.step = 0
        self.device = chunk.device
        self._chunk = self.policy.normalise_chunk(chunk)
        self._cond = self.policy.encode(stacked)
        self._optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=self.config.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.rate_factor = 1.0  # of the learning rate; below 1 after training diverged
        self._loss_sum = torch.zeros((), device=self.device)
        self._loss_count = 0

    def train_step(self) -> None:
        """One gradient step on a random batch, with replacement."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        count = self.config.batch_size
        rows = torch.randint(len(self._chunk), (count,), generator=self.generator, device=self.device)
        t, noise = self.policy.draw_corruption(count, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss = self.policy.denoising_loss(self._chunk[rows], self._cond[rows], t, noise)
        descend(self._optimizer, loss)
        self.ema.update()
        self._loss_sum += loss.detach()
        self._loss_count += 1
        self.step += 1

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step: up along a line, then constant; averaging does what a decay would."""
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup_iterations))
        return self.rate_factor * self.config.learning_rate * warm

    @property
    def last_learning_rate(self) -> float:
        """Learning rate of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def take_mean_loss(self) -> float:
        """Mean training loss since the last call.

        Raises:
            DivergenceError: it is not finite.
        """
        mean = float(self._loss_sum) / max(1, self._loss_count)
        if not math.isfinite(mean):
            self._give_up(f"the loss is {mean}")
        self._loss_sum.zero_()
        self._loss_count = 0
        return mean

    def require_finite(self) -> None:
        """Refuses weights that are not finite.

        Raises:
            DivergenceError: some aren't.
        """
        weights = (*self.policy.parameters(), *self.ema.average.parameters())
        if not bool(torch.stack([torch.isfinite(weight).all() for weight in weights]).all()):
            self._give_up("the weights are not finite")

    def _give_up(self, why: str) -> NoReturn:
        raise DivergenceError(
            f"{why} after {self.step} iterations; lower pretrain.learning_rate (now {self.config.learning_rate:g})"
        )

    @torch.no_grad()
    def validate(self, chunk: Tensor, stacked: Tensor, generator: torch.Generator) -> float:
        """Denoising loss of the averaged weights on held-out windows, at most VALIDATION_WINDOWS of them.

        Raw actions are (V, noise_dim) and stacked observations (V, cond_dim), V >= 1. Seed the generator equally each
        time, so that losses compare.
        """
        stride = -(-len(chunk) // VALIDATION_WINDOWS)
        chunk, stacked = chunk[::stride], stacked[::stride]
        batches = list(zip(torch.split(chunk, VALIDATION_BATCH), torch.split(stacked, VALIDATION_BATCH), strict=True))
        total = sum(
            float(self.ema.average.loss(actions, seen, generator)) * len(actions)
            for _ in range(VALIDATION_DRAWS)
            for actions, seen in batches
        )
        return total / (VALIDATION_DRAWS * len(chunk))

    # progress ----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on, as JSON values and tensors, which later steps don't change."""
        moments, optimizer = pack_optimizer(self._optimizer)
        tensors = {
            **add_prefix("policy", self.policy.state_dict()),
            **add_prefix("ema", self.ema.average.state_dict()),
            **add_prefix("optimizer", moments),
            "generator": self.generator.get_state(),
            "loss_sum": self._loss_sum,
        }
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        values = {
            "step": self.step,
            "ema_updates": self.ema.updates,
            "loss_count": self._loss_count,
            "rate_factor": self.rate_factor,
            "optimizer": optimizer,
        }
        return tensors, values

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.policy.load_state_dict(take_prefix("policy", tensors))
        self.ema.average.load_state_dict(take_prefix("ema", tensors))
        unpack_optimizer(self._optimizer, take_prefix("optimizer", tensors), values["optimizer"])
        self.generator.set_state(tensors["generator"])
        self._loss_sum.copy_(tensors["loss_sum"])
        self.step, self.ema.updates = values["step"], values["ema_updates"]
        self._loss_count, self.rate_factor = values["loss_count"], values["rate_factor"]
