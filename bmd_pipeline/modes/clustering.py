"""Clusters of whole episodes, by the shape of their track: behaviours without labels."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from sklearn.cluster import HDBSCAN
from torch import Tensor

from bmd_pipeline.errors import TrainingError

RESTARTS = 8
MAX_POINTS = 10_000
"""Episodes whose density is looked at, evenly spaced: its time and memory grow with their square."""
NEIGHBOURS = 5
"""Nearest episodes by which the density at an episode is estimated (HDBSCAN's min_samples)."""


def cluster_episodes(points: Tensor, num_clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """k-means with several seeded k-means++ starts; the tightest one is kept.

    Returns:
        cluster of each point (N, D) as (N,) int64, and centres (K, D).

    Raises:
        TrainingError: fewer points than clusters.
    """
    if len(points) < num_clusters:
        raise TrainingError(
            f"only {len(points)} demonstrations to cluster into {num_clusters} modes: collect more, or lower "
            "discover.num_modes"
        )
    data = points.double().cpu().numpy()
    generator = np.random.default_rng(seed)
    runs = (kmeans2(data, num_clusters, iter=50, minit="++", missing="warn", rng=generator) for _ in range(RESTARTS))
    centres, labels = min(runs, key=lambda found: float(((data - found[0][found[1]]) ** 2).sum()))
    return (
        torch.as_tensor(labels, dtype=torch.int64, device=points.device),
        torch.as_tensor(centres, dtype=points.dtype, device=points.device),
    )


def cluster_by_density(points: Tensor, min_size: int, most: int) -> tuple[Tensor, Tensor]:
    """Clusters divided by gaps, whose number is found: HDBSCAN (Campello, Moulavi and Sander 2013).

    k-means needs the number. If it is too large, one behaviour is split over several codes, and successes that move
    between them look like lost modes.

    Of the groups of at least `min_size` points, the `most` largest are kept. Of more than MAX_POINTS points, as many
    are looked at, in which a group may be smaller by as much, and the others join the nearest centre.

    Returns:
        group of each point (N, D) as (N,) int64, points in no group in that of the nearest centre, and centres (K, D);
        K is 0 or 1 where nothing shows a gap.
    """
    if len(points) < 2 * min_size:
        return torch.zeros(len(points), dtype=torch.int64, device=points.device), points[:0]
    stride = -(-len(points) // MAX_POINTS)
    sample = points[::stride]
    # a tree, as the other algorithm holds all pairs of episodes in memory
    smallest = max(2, min_size // stride)
    model = HDBSCAN(min_cluster_size=smallest, min_samples=NEIGHBOURS, algorithm="kd_tree", copy=True)
    found = torch.as_tensor(model.fit_predict(sample.double().cpu().numpy()), dtype=torch.int64)
    count = torch.bincount(found[found >= 0])
    largest = count.argsort(descending=True, stable=True)[:most].sort().values
    renamed = torch.full((len(count) + 1,), -1).index_put((largest,), torch.arange(len(largest)))
    if len(largest) == 0:
        return torch.zeros(len(points), dtype=torch.int64, device=points.device), points[:0]
    label = torch.full((len(points),), -1, device=points.device)
    label[::stride] = renamed[found].to(points.device)  # -1, the mark of no group, picks the last entry
    centres = torch.stack([points[label == group].mean(dim=0) for group in range(len(largest))])
    return torch.where(label >= 0, label, torch.cdist(points, centres).argmin(dim=1)), centres
