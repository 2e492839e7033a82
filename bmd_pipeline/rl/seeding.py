"""Hindsight seeding: start discovery from what the base policy already does.

Ours, not the paper's. The base policy's successful episodes are clustered by the shape of their track; the
inference model learns to name the cluster, and the steering policy the noise that led there, both by maximum
likelihood. The intrinsic reward then sharpens what was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.modes.clustering import cluster_by_density, cluster_episodes, resample_track
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.modes.inference import InferenceModel
from bmd_pipeline.modes.steering import SteeringPolicy
from bmd_pipeline.policies.gaussian import gaussian_log_prob
from bmd_pipeline.rl.rollout import Rollout

MIN_BEHAVIOURS = 2
"""Codes can't tell fewer apart."""
FIT_BATCH = 1024
STEERING_LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Clusters:
    """Behaviours found among episodes.

    Attributes:
        code: (N,) cluster of every episode: its own, or the nearest.
        margin: (N,) how much nearer it is than the next one, as a share of both distances, in [0, 1].
        centres: (K, points * feature_dim).
        by_density: whether gaps divide them.
    """

    code: Tensor
    margin: Tensor
    centres: Tensor
    by_density: bool = False

    def sizes(self, kept: Tensor) -> list[int]:
        """How many of the kept (N,) episodes are in each cluster, (K,)."""
        return torch.bincount(self.code[kept], minlength=len(self.centres)).tolist()


def find_clusters(
    played: Rollout, inference: InferenceModel, config: DiscoverConfig, kept: Tensor, seed: int
) -> Clusters:
    """Clusters the kept episodes, and assigns all of them to the nearest cluster.

    Args:
        played: episodes of the base policy.
        inference: gives the scale of the features.
        config: how to cluster, number of codes and of points.
        kept: (N,) which episodes shape the clusters.
        seed: fixes k-means, which also takes over where no gap shows.

    Raises:
        TrainingError: fewer kept episodes than codes of k-means.
    """
    scaled = inference.normalise(played.features)
    points = resample_track(scaled, played.alive.sum(dim=0), config.cluster_points)
    own, centres = None, points[:0]
    if config.clustering == "density":
        own, centres = cluster_by_density(points[kept], config.min_cluster_share, config.num_modes)
    if len(centres) < MIN_BEHAVIOURS:
        own = None
        _, centres = cluster_episodes(points[kept], config.num_modes, seed)
    nearest = torch.cdist(points, centres).topk(2, dim=1, largest=False)
    near, far = nearest.values.unbind(dim=1)
    code = nearest.indices[:, 0]
    return Clusters(
        code if own is None else code.masked_scatter(kept, own),
        (far - near) / (far + near).clamp(min=1e-9),
        centres,
        by_density=own is not None,
    )


def seed_modes(
    modes: DiscoveredModes, played: Rollout, clusters: Clusters, config: DiscoverConfig, generator: torch.Generator
) -> None:
    """Fits inference model and steering policy to clusters of successful episodes.

    Args:
        modes: networks, trained in place; a code for each cluster.
        played: episodes of the base policy, with the noise it drew in the record.
        clusters: what they do.
        config: discovery settings.
        generator: draws batches.
    """
    fit_inference(modes.inference, played, clusters.code, played.success, config, generator)
    if modes.steering is not None:
        _fit_steering(modes.steering, played, clusters.code, config, generator)


def fit_inference(
    inference: InferenceModel,
    played: Rollout,
    code: Tensor,
    kept: Tensor,
    config: DiscoverConfig,
    generator: torch.Generator,
) -> None:
    """Teaches the inference model the code (N,) of every kept (N,) episode, all codes equally often."""
    taken = played.alive & kept
    histories = inference.histories(played.features)[1:][taken]
    codes = code.expand_as(taken)[taken]
    optimizer = torch.optim.Adam(inference.parameters(), lr=inference.config.learning_rate)
    for batch in _balanced_batches(codes, inference.num_codes, config.inference_fit_steps, generator):
        loss = inference.loss(histories[batch], codes[batch], generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _fit_steering(
    steering: SteeringPolicy,
    played: Rollout,
    code: Tensor,
    config: DiscoverConfig,
    generator: torch.Generator,
) -> None:
    taken = played.alive & played.success
    u = steering.basis.project(played.record["0.w"][taken])
    cond, codes = played.cond[:-1][taken], code.expand_as(taken)[taken]
    optimizer = torch.optim.Adam(steering.parameters(), lr=STEERING_LEARNING_RATE)
    for batch in _balanced_batches(codes, steering.num_codes, config.steering_fit_steps, generator):
        mean, log_std = steering(cond[batch], codes[batch])
        loss = -gaussian_log_prob(u[batch], mean, log_std).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _balanced_batches(codes: Tensor, num_codes: int, steps: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Index batches in which every code is equally likely: p(z) is uniform when codes are played."""
    count = torch.bincount(codes, minlength=num_codes).clamp(min=1)
    weight = (1.0 / count.float())[codes]
    drawn = torch.multinomial(weight, steps * FIT_BATCH, replacement=True, generator=generator)
    return torch.split(drawn, FIT_BATCH)
