"""The mode entropy of two policies at equal numbers of successes.

Few successes look less even than many, even if both come from the same modes, so that entropies of policies that
succeed at different rates can't be subtracted, and a bootstrap repeats the bias instead of showing it. Here the policy
with more successes is thinned to as many as the other one has, in the sample and in every resample: what is left of the
bias is then the same for both if their modes are, however few successes there are. Where modes differ the remainder is
corrected (`corrected_entropy`).

Source: Hurlbert 1971, Ecology 52, 577-586 (rarefaction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.entropy import corrected_entropy
from bmd_pipeline.metrics.episodes import Episodes

Floats = NDArray[np.float64]

THINNINGS = 1000
"""Ways to thin that an entropy is the mean over: the error that they leave is 3 % of one thinning's."""
_DRAWS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class RarefiedEntropies:
    """Entropies of two policies at equal numbers of successes within each seed.

    Attributes:
        one: (num_seeds,) nats.
        other: (num_seeds,) nats.
        resampled: (num_resamples, num_seeds) first minus second when the seed's episodes are drawn again.
    """

    one: Floats
    other: Floats
    resampled: Floats


def rarefy_entropies(
    one: Sequence[Episodes], other: Sequence[Episodes], labelling: str, num_resamples: int, rng: np.random.Generator
) -> RarefiedEntropies:
    """Entropies of two policies that met the same starts, each seed for itself.

    Args:
        one: the first policy's episodes, one part per seed.
        other: the second policy's, equally many of the same seeds.
        labelling: name of the mode labelling.
        num_resamples: bootstrap resamples of the episodes; a resample draws the same episodes for both policies.
        rng: draws.
    """
    seen, resampled = [], []
    for pair in zip(one, other, strict=True):
        n = len(pair[0])
        orders = rng.permuted(np.tile(np.arange(n), (THINNINGS, 1)), axis=1)
        seen.append([entropy.mean() for entropy in _thin(pair, labelling, orders)])
        step = max(1, _DRAWS_AT_ONCE // n)
        blocks = [
            np.subtract(*_thin(pair, labelling, rng.integers(n, size=(min(step, num_resamples - start), n))))
            for start in range(0, num_resamples, step)
        ]
        resampled.append(np.concatenate(blocks))
    first, second = np.array(seen, dtype=np.float64).T
    return RarefiedEntropies(first, second, np.stack(resampled, axis=1))


def _thin(pair: tuple[Episodes, Episodes], labelling: str, draws: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Entropy of each policy from the first successes in each row of drawn episodes (rows, num_episodes), as many as
    both policies have there. Rows are in random order, so that the first ones are a random choice."""
    rows, n = draws.shape
    ranks = [np.cumsum(part.success[draws], axis=1, dtype=np.int32) for part in pair]
    size = np.minimum(ranks[0][:, -1], ranks[1][:, -1])[:, None]
    cells = (draws + n * np.arange(rows)[:, None]).ravel()
    entropies = []
    for part, rank in zip(pair, ranks, strict=True):
        kept = part.success[draws] & (rank <= size)
        counts = np.bincount(cells, weights=kept.ravel(), minlength=rows * n).reshape(rows, n)
        weights = part.labellings[labelling].weights
        entropies.append(corrected_entropy(counts @ weights, counts @ weights**2))
    return entropies[0], entropies[1]
