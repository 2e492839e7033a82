"""Generalised advantage estimation.

Source: Schulman et al. 2016 (arXiv 1506.02438).
"""

from __future__ import annotations

import torch
from torch import Tensor


def compute_gae(
    reward: Tensor, value: Tensor, goes_on: Tensor, bootstrap: Tensor, gamma: Tensor | float, gae_lambda: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of several reward streams at once.

    δ_t = r_t + γ·b_t·V_{t+1} − V_t and A_t = δ_t + γλ·g_t·A_{t+1}.

    Args:
        reward: (T, N, S) reward of each decision, in S streams.
        value: (T + 1, N, S).
        goes_on: (T, N) g_t, whether the same episode takes another decision.
        bootstrap: (T, N) b_t, whether the next state's value counts: where the episode goes on, and at the time
            limit of a continuing task.
        gamma: discount, one or (S,).
        gae_lambda: λ of the estimator, one or (S,).

    Returns:
        advantage and return (T, N, S). Entries of decisions that were not taken mean nothing.
    """
    delta = reward + gamma * value[1:] * bootstrap[..., None] - value[:-1]
    decay = gamma * gae_lambda * goes_on[..., None]
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        running = delta[t] + decay[t] * running
        advantage[t] = running
    return advantage, advantage + value[:-1]


def compute_continuation(alive: Tensor, timed_out: Tensor, continuing: bool) -> tuple[Tensor, Tensor]:
    """Which decisions are followed by another, and over which to bootstrap.

    A task's time limit is part of the task: its end is terminal unless the task is continuing. (A prototype that
    bootstrapped there, from states its critic never trained on, collapsed: see `Critic` for what a continuing task
    takes.)

    Args:
        alive: (T, N) whether each decision was taken.
        timed_out: (N,) episodes that a time limit ended: the task's, or a curriculum's.
        continuing: whether the task says that its time limit is an artefact.

    Returns:
        goes_on and bootstrap, (T, N) float.
    """
    goes_on = torch.cat([alive[1:], torch.zeros_like(alive[:1])])
    bootstrap = goes_on
    if continuing:
        last = alive & ~goes_on
        bootstrap = goes_on | (last & timed_out)
    return goes_on.float(), bootstrap.float()
