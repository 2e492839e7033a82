"""ManiSkill's own success measure of PushT-v1, the share of the goal that the T covers, for many poses at once.

The T's raster cells are moved into the goal's frame and counted there, on the same grid with the same
rounding as `pseudo_render_intersection`; that function serves one environment, this one a batch of poses.

Source: PushT-v1 of ManiSkill 3.0.1.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor


class GoalOverlap:
    """Covered share of the goal.

    Args:
        cells: (3, num_cells) homogeneous coordinates of the T's raster cells, in metres.
        goal: (resolution, resolution) bool, the goal's cells indexed (x, y).
        world_to_goal: (3, 3) homogeneous transform.
        half_width: half the raster's width in metres.
    """

    def __init__(self, cells: Tensor, goal: Tensor, world_to_goal: Tensor, half_width: float) -> None:
        self._cells = cells
        self._goal = goal.flatten()
        self._world_to_goal = world_to_goal
        self._resolution = goal.shape[0]
        self._scale = (self._resolution / 2) / half_width
        self._area = goal.sum().float()

    @classmethod
    def of_env(cls, env: Any) -> Self:
        """Takes raster, goal and transform from an unwrapped PushT-v1 environment."""
        drawn = env.tee_render == 1  # an image: rows are y, upside down
        return cls(env.homo_uv[:, drawn], drawn.flip(0).T, env.world_to_goal_trans, env.uv_half_width)

    def __call__(self, x: Tensor, y: Tensor, yaw: Tensor) -> Tensor:
        """Share (num_poses,) in [0, 1] of the goal covered by T's at x, y, yaw, each (num_poses,)."""
        cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
        rows = [torch.stack(row, -1) for row in ((cos, -sin, x), (sin, cos, y), (zero, zero, zero + 1.0))]
        to_goal = self._world_to_goal @ torch.stack(rows, 1)  # (num_poses, 3, 3)
        moved = to_goal[:, :2] @ self._cells  # (num_poses, 2, num_cells)
        index = (moved * self._scale + self._resolution / 2).long()  # truncates towards zero, as ManiSkill does
        outside = ((index < 0) | (index >= self._resolution)).any(1)
        flat = (index[:, 0] * self._resolution + index[:, 1]).masked_fill(outside, 0)  # there, as in ManiSkill
        covered = torch.zeros(len(yaw), self._goal.numel(), dtype=torch.bool, device=yaw.device)
        covered.scatter_(1, flat, True)
        return (covered & self._goal).sum(1) / self._area
