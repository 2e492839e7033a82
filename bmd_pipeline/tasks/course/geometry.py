"""The obstacle course, and which way through it a path takes.

```
  y
 0.35  ------------------- finish line -------------------
 0.26          1     o     2     o     3     o     4
 0.08             L        o     M     o        R
-0.10                   L        o        R
-0.28                              * start
                              x = 0.5
```

A path is classified by the gap it takes in each row of posts: 2 · 3 · 4 = 24 modes, one for each homotopy class of
paths that never turn back. Lengths are in metres. Nothing here knows how the course is walked: a point and a
robot's tip share it.

Source: obstacle avoidance in D3IL (arXiv 2402.14606).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Posts side by side.

    Attributes:
        y: where the row stands.
        posts: x of its posts, from the left.
        radius: of each post.
        gaps: names of the gaps from the left; the outer two lie beside the posts.
    """

    y: float
    posts: tuple[float, ...]
    radius: float
    gaps: tuple[str, ...]

    def gap_centre(self, gap: int) -> float:
        """x of the middle of a gap; the outer gaps end at the field's edge, but the way through hugs the posts."""
        beside = (self.posts[0] - 2 * OUTER_OFFSET, *self.posts, self.posts[-1] + 2 * OUTER_OFFSET)
        return (beside[gap] + beside[gap + 1]) / 2


ROWS = (
    Row(-0.10, (0.5,), 0.03, ("L", "R")),
    Row(0.08, (0.425, 0.575), 0.025, ("L", "M", "R")),
    Row(0.26, (0.35, 0.5, 0.65), 0.025, ("1", "2", "3", "4")),
)
OUTER_OFFSET = 0.07
"""Distance from an outermost post to the middle of the gap beside it."""
START = (0.525, -0.28)
FINISH_Y = 0.35
FIELD_X = (0.1, 0.9)
FIELD_MIN_Y = -0.45

MODE_GAPS: tuple[tuple[int, ...], ...] = tuple(product(*(range(len(row.gaps)) for row in ROWS)))
"""Gap in each row, for each of the 24 modes."""
MODES: tuple[str, ...] = tuple(
    "-".join(row.gaps[gap] for row, gap in zip(ROWS, gaps, strict=True)) for gaps in MODE_GAPS
)
"""Names of the modes, such as "L-M-2"."""
NOT_REACHED = -1
"""Stands for the gap of a row that a path hasn't come to."""


class Course:
    """The course as tensors on one device."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        most = max(len(row.posts) for row in ROWS)
        edges = [[*row.posts, *[float("inf")] * (most - len(row.posts))] for row in ROWS]
        self.posts = torch.tensor([(x, row.y) for row in ROWS for x in row.posts], device=device)  # (6, 2)
        self.radii = torch.tensor([row.radius for row in ROWS for _ in row.posts], device=device)  # (6,)
        self.row_y = torch.tensor([row.y for row in ROWS], device=device)  # (3,)
        self.edges = torch.tensor(edges, device=device)  # (3, 3) x of the posts between gaps
        self.mode_gaps = torch.tensor(MODE_GAPS, device=device)  # (24, 3)

    def is_blocked(self, position: Tensor, body_radius: float) -> Tensor:
        """Whether a round body at position (..., 2) touches a post or has left the field; (...,) bool."""
        # Not torch.cdist: its rounding depends on the batch size.
        squared = (position[..., None, :] - self.posts).square().sum(-1)  # (..., 6)
        x, y = position.unbind(-1)
        hit = (squared < (self.radii + body_radius).square()).any(-1)
        return hit | (x < FIELD_X[0]) | (x > FIELD_X[1]) | (y < FIELD_MIN_Y)

    def is_finished(self, position: Tensor) -> Tensor:
        """Whether position (..., 2) lies behind the finish line; (...,) bool."""
        return position[..., 1] > FINISH_Y

    def follow(self, gaps: Tensor, position: Tensor) -> Tensor:
        """Goes on by one step: a row's gap is where the path first comes level with the row.

        Args:
            gaps: (..., 3) int64 gap taken in each row so far, or NOT_REACHED.
            position: (..., 2) after the step.

        Returns:
            (..., 3) the same with the rows that were just reached.
        """
        reached = (gaps == NOT_REACHED) & (position[..., 1:] >= self.row_y)
        return torch.where(reached, self._gaps_at(position[..., 0]), gaps)

    def trace(self, track: Tensor) -> Tensor:
        """Gap taken in each row, (N, 3) int64 or NOT_REACHED, of paths (T, N, 2); equals `follow` along them."""
        reached = track[..., 1:] >= self.row_y  # (T, N, 3)
        first = reached.int().argmax(dim=0)  # (N, 3) the first of equal values
        gaps = self._gaps_at(track[..., 0]).gather(0, first[None])[0]
        return torch.where(reached.any(dim=0), gaps, NOT_REACHED)

    def compatible_modes(self, gaps: Tensor) -> Tensor:
        """Which modes a path can still become: gaps (N, 3) to (N, 24) bool."""
        gaps = gaps[:, None]
        return ((gaps == self.mode_gaps) | (gaps == NOT_REACHED)).all(dim=-1)

    def _gaps_at(self, x: Tensor) -> Tensor:
        return (x[..., None, None] > self.edges).sum(dim=-1)  # (..., 3)
