"""Training windows: what the policy sees at a step, and the chunk of actions it should answer with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.config.schema import PolicyConfig
from bmd_pipeline.demos.store import Demos
from bmd_pipeline.policies.history import frame_rows, stack_frames


@dataclass(frozen=True)
class Windows:
    """One window per demonstrated step, gathered: indexing rows is all that training has to do.

    Attributes:
        stacked: (W, n_obs_steps · obs_dim) stacked observations.
        chunk: (W, horizon · action_dim) the actions from that step on; after the episode's end its last
            action repeats, which holds for velocities as for targets.
    """

    stacked: Tensor
    chunk: Tensor

    def __len__(self) -> int:
        return len(self.chunk)

    def to(self, device: torch.device) -> Windows:
        """The same windows on a device."""
        return Windows(self.stacked.to(device), self.chunk.to(device))


def make_windows(demos: Demos, config: PolicyConfig, episodes: NDArray[np.int64] | None = None) -> Windows:
    """Cuts demonstrations into windows, one starting at each step.

    Args:
        demos: the demonstrations.
        config: chunk length and observation history.
        episodes: indices of the episodes to use, in this order; all if None.
    """
    chosen = np.arange(demos.num_episodes) if episodes is None else episodes
    firsts, lasts = demos.episode_starts[chosen], demos.episode_ends[chosen]
    lengths = lasts - firsts
    starts = torch.from_numpy(np.repeat(firsts, lengths))  # (W,) first row of each window's episode
    ends = torch.from_numpy(np.repeat(lasts, lengths))  # (W,) row after its last
    offsets = np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = starts + torch.from_numpy(np.arange(len(starts)) - offsets)  # (W,) current row
    obs, action = torch.from_numpy(demos.obs), torch.from_numpy(demos.action)
    frames = frame_rows(starts, rows, config.n_obs_steps, config.obs_stride)
    stacked = stack_frames([obs[index] for index in frames])
    ahead = rows[:, None] + torch.arange(config.horizon)  # (W, horizon)
    chunk = action[torch.minimum(ahead, ends[:, None] - 1)]
    return Windows(stacked, chunk.flatten(1))


def split_episodes(
    num_episodes: int, held_out: float, generator: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Splits whole episodes into training and validation sets, each in rising order.

    Args:
        num_episodes: number of episodes, at least 1.
        held_out: share to hold out; rounded, but one episode is always left to train on.
        generator: draws which.

    Returns:
        Indices of training and of held-out episodes.
    """
    count = min(round(held_out * num_episodes), num_episodes - 1)
    order = torch.randperm(num_episodes, generator=generator, device=generator.device).cpu().numpy()
    return np.sort(order[count:]), np.sort(order[:count])
