"""The intrinsic reward log q_φ(z|h) − log p(z), and the multimodality it adds up to.

Source: BMD (arXiv 2605.11387): r_int = log q_φ(z|s) − log p(z) with p uniform; its mean over held-out episodes
is the proxy M, a lower bound of the mutual information I(Z;S) in nats.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def compute_log_ratio(log_q: Tensor, code: Tensor, floor: float = -math.inf) -> Tensor:
    """log q(z|h) − log p(z) of the code that was played.

    Args:
        log_q: (T + 1, N, K) log-probabilities of all codes.
        code: (N,) the code played.
        floor: lower bound in nats.

    Returns:
        (T + 1, N), at most ln K.
    """
    num_codes = log_q.shape[-1]
    played = log_q.gather(2, code.expand(log_q.shape[0], -1)[..., None]).squeeze(2)
    return (played + math.log(num_codes)).clamp(min=floor)


def compute_intrinsic_reward(log_ratio: Tensor, alive: Tensor, form: Literal["per_step", "telescoped"]) -> Tensor:
    """Intrinsic reward of each decision.

    `per_step` pays the log-ratio after each decision, as published. Success then ends the income, and the agent
    may learn to loiter. `telescoped` (ours) pays its increase: an episode's sum is its last log-ratio, however
    long it took.

    Args:
        log_ratio: (T + 1, N); entry t is taken before decision t.
        alive: (T, N) whether decision t was taken.
        form: which of the two.

    Returns:
        (T, N), zero where not alive.
    """
    if form == "per_step":
        reward = log_ratio[1:]
    else:
        # nothing is known of the code before the first decision: q(z|h_0) = p(z) by definition
        start = torch.cat([torch.zeros_like(log_ratio[:1]), log_ratio[1:-1]])
        reward = log_ratio[1:] - start
    return reward * alive


def compute_multimodality(log_ratio: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """M per episode, two ways: mean over its visited states, and at its last one.

    Args:
        log_ratio: (T + 1, N).
        alive: (T, N).

    Returns:
        mean over visited states (N,) and value at the last state (N,), in nats.
    """
    decisions = alive.sum(dim=0)  # (N,)
    mean = (log_ratio[1:] * alive).sum(dim=0) / decisions.clamp(min=1)
    last = log_ratio.gather(0, decisions[None]).squeeze(0)
    return mean, last
