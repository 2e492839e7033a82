"""How evenly a policy's successes spread over the task's modes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.success import mode_shares

Floats = NDArray[np.float64]


def mode_entropy(successes: Floats) -> Floats:
    """H(π), the entropy of the mode distribution among successful episodes.

    The plug-in estimate −Σ p_i ln p_i, as published. It is biased downwards by about (modes − 1) / 2n, the same way
    for every policy with n successes. Policies with other numbers of them are compared by `rarefaction`.

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


def corrected_entropy(successes: Floats, squares: Floats) -> Floats:
    """H(π) without the first-order bias of the plug-in estimate, for differences between policies.

    The bias is −½ Σ Var(p_i) / p_i (delta method). With one mode per success that is Miller's and Madow's
    (observed modes − 1) / 2n; weights spread over several modes vary less, and are corrected by less. A single observed
    mode keeps 0. The estimate may exceed ln num_modes: cutting it off there would bring a bias back that depends on n.

    Args:
        successes: (..., num_modes) sums of the successful episodes' weights.
        squares: (..., num_modes) sums of the same weights squared.

    Returns:
        (...) nats, at least `mode_entropy`; 0 where nothing succeeded.

    Source: Miller 1955, in Quastler (ed.), Information Theory in Psychology, 95-100; for weights it is ours.
    """
    total = successes.sum(axis=-1)
    spread = np.divide(squares, successes, out=np.zeros_like(successes), where=successes > 0).sum(axis=-1)
    bias = np.divide(spread - 1.0, 2.0 * total, out=np.zeros_like(total), where=total > 0)
    corrected: Floats = mode_entropy(successes) + np.maximum(bias, 0.0)
    return corrected
