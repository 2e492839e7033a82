"""The value function."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bmd_pipeline.policies.networks import make_mlp
from bmd_pipeline.policies.normaliser import STD_FLOOR


class Critic(nn.Module):
    """V(s, track, z, t), one head per reward stream.

    It sees the whole track, which a reward may depend on where the policy's observation doesn't show it; so do the
    critics of methods with and without codes, so that comparing them is fair.

    Where the time limit is part of the task, the time left is part of the state. The critic of a continuing task does
    not see the time. Its targets bootstrap from the observation at the limit, which no reward follows: it learns what
    that one is worth from episodes that come by there earlier. If the time told them apart, the observation would not
    be among its training data, and its value a guess that all others rest on. (A training row of its own would have
    no target but that guess.)

    Args:
        cond_dim: size of the policy's condition.
        track_dim: columns of the task's track.
        num_codes: K; 1 means no code.
        num_streams: reward streams.
        hidden_sizes: widths.
        sees_time: whether the time limit is part of the task.

    Source: Pardo et al. 2018 (arXiv 1712.00378), time-awareness and partial-episode bootstrapping.
    """

    track_mean: Tensor  # (track_dim,)
    track_std: Tensor  # (track_dim,)
    scaled: Tensor  # () whether they have been fitted

    def __init__(
        self,
        cond_dim: int,
        track_dim: int,
        num_codes: int,
        num_streams: int,
        hidden_sizes: tuple[int, ...],
        *,
        sees_time: bool = True,
    ) -> None:
        super().__init__()
        self.sees_time = sees_time
        self.num_codes = num_codes
        self.num_streams = num_streams
        self.register_buffer("track_mean", torch.zeros(track_dim))
        self.register_buffer("track_std", torch.ones(track_dim))
        self.register_buffer("scaled", torch.zeros((), dtype=torch.bool))
        inputs = cond_dim + track_dim + (num_codes if num_codes > 1 else 0) + (1 if sees_time else 0)
        self.network = make_mlp((inputs, *hidden_sizes, num_streams), "silu")

    def fit_scale(self, track: Tensor, alive: Tensor, *, last: bool = True) -> None:
        """Takes the scale of the track from a rollout, unless it has been fixed.

        Args:
            track: (T + 1, N, track_dim), raw.
            alive: (T, N) which decisions were taken.
            last: fix it. False while a curriculum cuts episodes short: what lies beyond the cut has not been seen.
        """
        if bool(self.scaled):
            return
        seen = track[1:][alive]
        std = seen.std(dim=0)
        self.track_mean.copy_(seen.mean(dim=0))
        self.track_std.copy_(torch.where(std < STD_FLOOR, torch.ones_like(std), std))
        self.scaled.fill_(last)

    def inputs(
        self, cond: Tensor, track: Tensor, code: Tensor, horizon_decisions: int, cut_decisions: int = 0
    ) -> Tensor:
        """What the critic sees at every decision, and after the last.

        Args:
            cond: (T + 1, N, cond_dim).
            track: (T + 1, N, track_dim), raw.
            code: (N,).
            horizon_decisions: decisions in an episode of full length.
            cut_decisions: by how many these episodes were shorter; their clock starts so much later.

        Returns:
            (T + 1, N, input_dim).
        """
        length, count = cond.shape[:2]
        parts = [cond, (track - self.track_mean) / self.track_std]
        if self.sees_time:
            time = (cut_decisions + torch.arange(length, device=cond.device)) / horizon_decisions
            parts.append(time[:, None, None].expand(length, count, 1).to(cond.dtype))
        if self.num_codes > 1:
            one_hot = F.one_hot(code, self.num_codes).to(cond.dtype)
            parts.append(one_hot.expand(length, -1, -1))
        return torch.cat(parts, dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Values (..., num_streams) of inputs (..., input_dim)."""
        values: Tensor = self.network(inputs)
        return values
