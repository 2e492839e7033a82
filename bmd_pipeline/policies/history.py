"""Observation history: what a policy with `n_obs_steps` observations sees.

The stacked observation is `[o_t, o_t - o_{t-stride}, o_t - o_{t-2·stride}, …]`: earlier observations enter
as differences, so that their scale is that of the motion and not of the place. Before the start of an
episode its first observation repeats. Training windows and rollouts share the functions below.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bmd_pipeline.errors import ConfigError


def stack_frames(frames: Sequence[Tensor]) -> Tensor:
    """Stacks observations, the current one first.

    Args:
        frames: o_t, o_{t-stride}, o_{t-2·stride}, …, each (B, obs_dim).

    Returns:
        (B, len(frames) · obs_dim)
    """
    current = frames[0]
    return torch.cat([current, *(current - earlier for earlier in frames[1:])], dim=-1)


def frame_rows(starts: Tensor, rows: Tensor, n_obs_steps: int, stride: int) -> list[Tensor]:
    """Which rows of a demonstration array a policy sees.

    Args:
        starts: (W,) first row of the episode that each window belongs to.
        rows: (W,) current row of each window.
        n_obs_steps: observations seen.
        stride: control steps between two of them.

    Returns:
        `n_obs_steps` index tensors (W,), the current rows first.
    """
    return [torch.maximum(rows - step * stride, starts) for step in range(n_obs_steps)]


class ObsHistory:
    """Keeps the last observations of a batch of running episodes.

    Args:
        n_obs_steps: observations the policy sees.
        stride: control steps between two of them.

    Raises:
        ConfigError: either is below 1.
    """

    def __init__(self, n_obs_steps: int, stride: int) -> None:
        if n_obs_steps < 1 or stride < 1:
            raise ConfigError(f"n_obs_steps and obs_stride must be >= 1, got {n_obs_steps} and {stride}")
        self.n_obs_steps = n_obs_steps
        self.stride = stride
        self._span = (n_obs_steps - 1) * stride + 1
        self._recent: Tensor | None = None  # (span, B, obs_dim), oldest first

    def start(self, obs: Tensor) -> Tensor:
        """Begins new episodes.

        Args:
            obs: (B, obs_dim) their first observation.

        Returns:
            (B, n_obs_steps · obs_dim) stacked observation.
        """
        self._recent = obs.expand(self._span, *obs.shape)
        return self._stacked(self._recent)

    def extend(self, obs_path: Tensor) -> Tensor:
        """Goes on by one or more control steps.

        Args:
            obs_path: (n, B, obs_dim) observation after each control step.

        Returns:
            (B, n_obs_steps · obs_dim) stacked observation after the last of them.

        Raises:
            ConfigError: `start` was not called.
        """
        if self._recent is None:
            raise ConfigError("ObsHistory: call start(obs) before extend")
        self._recent = torch.cat([self._recent, obs_path])[-self._span :]
        return self._stacked(self._recent)

    def _stacked(self, recent: Tensor) -> Tensor:
        return stack_frames(list(recent.flip(0)[:: self.stride].unbind()))
