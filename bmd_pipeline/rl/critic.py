"""The value function."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.policies.networks import make_mlp


class Critic(nn.Module):
    """V(s, h, z, t), one head per reward stream.

    Args:
        cond_dim: size of the policy's condition.
        feature_dim: track columns of the inference model, normalised; 0 without one.
        num_codes: K; 1 means no code.
        num_streams: reward streams.
        hidden_sizes: widths.
    """

    def __init__(
        self, cond_dim: int, feature_dim: int, num_codes: int, num_streams: int, hidden_sizes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.num_streams = num_streams
        inputs = cond_dim + feature_dim + (num_codes if num_codes > 1 else 0) + 1
        self.network = make_mlp((inputs, *hidden_sizes, num_streams), "silu")

    def inputs(self, cond: Tensor, features: Tensor, code: Tensor, horizon_decisions: int) -> Tensor:
        """What the critic sees at every decision.

        The time left belongs to the state of a task with a time limit.

        Args:
            cond: (T + 1, N, cond_dim).
            features: (T + 1, N, feature_dim), normalised.
            code: (N,).
            horizon_decisions: decisions in an episode of full length.

        Returns:
            (T + 1, N, input_dim).
        """
        length, count = cond.shape[:2]
        time = torch.arange(length, device=cond.device) / horizon_decisions
        parts = [cond, features, time[:, None, None].expand(length, count, 1).to(cond.dtype)]
        if self.num_codes > 1:
            one_hot = F.one_hot(code, self.num_codes).to(cond.dtype)
            parts.append(one_hot.expand(length, -1, -1))
        return torch.cat(parts, dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Values (..., num_streams) of inputs (..., input_dim)."""
        values: Tensor = self.network(inputs)
        return values
