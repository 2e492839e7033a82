"""Teaching: clusters of the demonstrations become codes of the denoiser.

Ours, not the paper's. Demonstrations are clustered by the shape of what was observed, without labels, and the policy is
cloned a little longer on the same data, this time told which cluster each window comes from. The coded policy acts on
an observation and a code alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bmd_pipeline.config.schema import DiscoverConfig, ModesConfig, TeachingConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.errors import TrainingError
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


def teach_codes(
    policy: DiffusionPolicy,
    chunk: Tensor,
    cond: Tensor,
    code: Tensor,
    num_codes: int,
    config: TeachingConfig,
    generator: torch.Generator,
    advance: Callable[[int], None] = lambda steps: None,
) -> DiffusionPolicy:
    """Clones a policy further on the same data, told the code of each window.

    Args:
        policy: the pre-trained policy, which stays as it is.
        chunk: (W, noise_dim) normalised actions of the windows.
        cond: (W, cond_dim) their encoded observations.
        code: (W,) their codes.
        num_codes: K.
        config: gradient steps, batch, learning rate.
        generator: draws batches, diffusion steps and noise.
        advance: told how many steps were taken.

    Returns:
        the coded policy: the moving average of the weights, frozen.

    Raises:
        TrainingError: the loss is not finite.
    """
    coded = policy.with_codes(num_codes)
    coded.denoiser.requires_grad_(True)
    average = EMA(coded, EMA_DECAY)
    tables = list(coded.denoiser.code_tables)
    told = {id(table) for table in tables}
    body = [weight for weight in coded.denoiser.parameters() if id(weight) not in told]
    rates = (config.learning_rate, TABLE_RATE * config.learning_rate)
    optimizer = torch.optim.AdamW([{"params": body}, {"params": tables}], weight_decay=0.0, fused=True)
    loss = torch.zeros(())
    for step, rows in enumerate(draw_balanced(code, config.batch_size, config.steps, generator)):
        for group, peak in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = peak * compute_rate_share(step, config.steps)
        t, noise = coded.draw_corruption(len(rows), generator)
        loss = coded.denoising_loss(chunk[rows], cond[rows], t, noise, code[rows])
        descend(optimizer, loss)
        average.update()
        advance(1)
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"the loss is {float(loss.detach())} while codes are taught: lower discover.teaching.learning_rate "
            f"(now {config.learning_rate:g})"
        )
    return average.average.requires_grad_(False).eval()
