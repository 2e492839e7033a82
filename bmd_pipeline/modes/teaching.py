"""Teaching: clusters of the demonstrations become codes of the denoiser.

Ours, not the paper's. Demonstrations are clustered by the shape of what was observed, without labels, and the policy is
cloned a little longer on the same data, this time told which cluster each window comes from. The coded policy acts on
an observation and a code alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bmd_pipeline.config.schema import DiscoverConfig, ModesConfig, TeachingConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.io.progress import add_prefix, pack_optimizer, take_prefix, unpack_optimizer
from bmd_pipeline.modes.clustering import cluster_by_density, cluster_episodes
from bmd_pipeline.modes.inference import draw_balanced
from bmd_pipeline.modes.modes import DROPPED, interpolate_rows
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.networks import EMA, descend

MIN_BEHAVIOURS = 2
"""Codes can't tell fewer apart."""
TABLE_RATE = 10.0
"""How much faster than the rest of the network the codes' tables learn: they start from nothing."""
WARMUP_STEPS = 50
EMA_DECAY = 0.995


@dataclass(frozen=True)
class Clusters:
    """Behaviours found among demonstrations."""

    cluster: Tensor  # (E,) cluster of each demonstration
    centres: Tensor  # (C, points · obs_dim)
    by_density: bool  # whether gaps divide them; False: k-means cut them

    @property
    def sizes(self) -> list[int]:
        """Demonstrations in each cluster, (C,)."""
        return torch.bincount(self.cluster, minlength=len(self.centres)).tolist()

    def find_codes(self, decided: ModesConfig) -> Tensor:
        """The code of each cluster, (C,), as a person decided: its own where nothing was, and DROPPED for none.

        Raises:
            ConfigError: it was decided about other clusters than these.
        """
        decided.require_sizes(self.sizes)
        codes = decided.codes() or range(len(self.centres))
        return torch.tensor([DROPPED if code is None else code for code in codes], device=self.centres.device)


def describe_demos(demos: Demos, cond: Tensor, obs_dim: int, points: int) -> Tensor:
    """Describes each demonstration by its encoded observations at evenly spaced points, the last one at its end.

    Args:
        demos: E demonstrations of W steps.
        cond: (W, cond_dim) encoded observation history of every step, the present observation first.
        obs_dim: size of one observation.
        points: how many.

    Returns:
        (E, points · obs_dim).
    """
    firsts = torch.from_numpy(demos.episode_starts).to(cond.device)
    lasts = torch.from_numpy(demos.episode_ends).to(cond.device) - 1
    return interpolate_rows(cond[:, :obs_dim], firsts, lasts, points)


def cluster_demos(points: Tensor, config: DiscoverConfig, seed: int) -> Clusters:
    """Finds the behaviours among demonstrations, described by points (E, D) from `describe_demos`.

    The seed fixes k-means, which also takes over where no gap shows.

    Raises:
        TrainingError: fewer demonstrations than clusters of k-means.
    """
    if config.clustering == "density":
        cluster, centres = cluster_by_density(points, config.min_demonstrations, config.num_modes)
        if len(centres) >= MIN_BEHAVIOURS:
            return Clusters(cluster, centres, by_density=True)
    cluster, centres = cluster_episodes(points, config.num_modes, seed)
    return Clusters(cluster, centres, by_density=False)


def compute_rate_share(step: int, steps: int) -> float:
    """Learning rate as a share of its peak: a linear warm-up, then half a cosine down to zero."""
    warmup = min(WARMUP_STEPS, steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Teacher:
    """Clones a policy further on the same data, told the code of each window.

    Args:
        policy: the pre-trained policy, which stays as it is.
        chunk: (W, noise_dim) normalised actions of the windows.
        cond: (W, cond_dim) their encoded observations.
        code: (W,) their codes.
        num_codes: K.
        config: gradient steps, batch, learning rate.
        generator: draws batches, diffusion steps and noise.

    Attributes:
        step: gradient steps taken so far.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        chunk: Tensor,
        cond: Tensor,
        code: Tensor,
        num_codes: int,
        config: TeachingConfig,
        generator: torch.Generator,
    ) -> None:
        self.step = 0
        self._chunk, self._cond, self._code = chunk, cond, code
        self._config, self._generator = config, generator
        self._batches = draw_balanced(code, config.batch_size, config.steps, generator)
        self._coded = policy.with_codes(num_codes)
        self._coded.denoiser.requires_grad_(True)
        self._average = EMA(self._coded, EMA_DECAY)
        tables = list(self._coded.denoiser.code_tables)
        told = {id(table) for table in tables}
        body = [weight for weight in self._coded.denoiser.parameters() if id(weight) not in told]
        self._rates = (config.learning_rate, TABLE_RATE * config.learning_rate)
        self._optimizer = torch.optim.AdamW([{"params": body}, {"params": tables}], weight_decay=0.0, fused=True)
        self._loss = torch.zeros(())

    def train_step(self) -> None:
        """Takes one gradient step."""
        for group, peak in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = peak * compute_rate_share(self.step, self._config.steps)
        rows = next(self._batches)
        t, noise = self._coded.draw_corruption(len(rows), self._generator)
        self._loss = self._coded.denoising_loss(self._chunk[rows], self._cond[rows], t, noise, self._code[rows])
        descend(self._optimizer, self._loss)
        self._average.update()
        self.step += 1

    def finish(self) -> DiffusionPolicy:
        """The coded policy: the moving average of the weights, frozen.

        Raises:
            TrainingError: the loss of the last step is not finite.
        """
        if not bool(torch.isfinite(self._loss)):
            raise TrainingError(
                f"the loss is {float(self._loss.detach())} while codes are taught: lower "
                f"discover.teaching.learning_rate (now {self._config.learning_rate:g})"
            )
        return self._average.average.requires_grad_(False).eval()

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on but the generator; later steps don't change it."""
        parts = {
            "coded": self._coded.state_dict(),
            "average": self._average.average.state_dict(),
            "optimizer": pack_optimizer(self._optimizer)[0],
            "taken": {"step": torch.tensor(self.step)},
        }
        named = {name: value for part, group in parts.items() for name, value in add_prefix(part, group).items()}
        return {name: value.clone() for name, value in named.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` returned."""
        self._coded.load_state_dict(take_prefix("coded", tensors))
        self._average.average.load_state_dict(take_prefix("average", tensors))
        groups = pack_optimizer(self._optimizer)[1]  # rates follow from the step
        unpack_optimizer(self._optimizer, take_prefix("optimizer", tensors), groups)
        self.step = self._average.updates = int(take_prefix("taken", tensors)["step"])
