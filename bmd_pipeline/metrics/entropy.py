"""How evenly a policy's successes spread over the task's modes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.success import mode_shares

Floats = NDArray[np.float64]


def mode_entropy(successes: Floats) -> Floats:
    """H(π), the entropy of the mode distribution among successful episodes.

    The plug-in estimate −Σ p_i ln p_i. It is biased downwards by about (modes − 1) / 2n, the same way for
    every policy evaluated on n successes.

    Args:
        successes: (..., num_modes) successful episodes per mode.

    Returns:
        (...) nats in [0, ln num_modes]; 0 where nothing succeeded.
    """
    share = mode_shares(successes)
    log_share = np.log(share, out=np.zeros_like(share), where=share > 0)
    # 0.0 - x and not -x: a collapsed policy has entropy 0.0, not -0.0.
    entropy: Floats = 0.0 - (share * log_share).sum(axis=-1)
    return np.clip(entropy, 0.0, np.log(successes.shape[-1]))
