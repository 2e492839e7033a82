"""Lines through the course for demonstrators to follow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.tasks.course.geometry import FINISH_Y, ROWS

SPACING = 0.002
"""Metres between two points of a line."""
LOOK_AHEAD = 8
"""How many points ahead of the nearest one a demonstrator aims: a bit more than a step."""
_STRAIGHT_BEFORE, _STRAIGHT_AFTER = 0.035, 0.03  # metres before and behind a row in which the line runs straight
_FIRST_SPREAD = 0.04  # beside the first row's only post there is room
_SPREAD = 0.008  # standard deviation of the line's place in a gap of the other rows


class Line:
    """A line through given corners, to be followed.

    Args:
        corners: (n, 2).
    """

    def __init__(self, corners: NDArray[np.float64]) -> None:
        corner_at = np.concatenate([[0.0], np.linalg.norm(np.diff(corners, axis=0), axis=1).cumsum()])
        along = np.arange(0.0, corner_at[-1], SPACING)
        self.x = np.interp(along, corner_at, corners[:, 0])
        self.y = np.interp(along, corner_at, corners[:, 1])

    def follow(self, x: float, y: float) -> tuple[float, float]:
        """Direction from a place to the line a little ahead; its larger component is 1 or -1."""
        nearest = int(np.argmin((self.x - x) ** 2 + (self.y - y) ** 2))
        target = min(nearest + LOOK_AHEAD, len(self.x) - 1)
        dx, dy = float(self.x[target]) - x, float(self.y[target]) - y
        size = max(abs(dx), abs(dy), SPACING)
        return dx / size, dy / size


def draw_line(
    gaps: tuple[int, ...], start: tuple[float, float], draw: np.random.Generator, reach: float = math.inf
) -> Line:
    """A line through the wanted gaps, a little different each time.

    Args:
        gaps: the wanted gap in each row.
        start: where the episode starts.
        draw: shifts the line within the gaps.
        reach: farthest distance in metres from the origin, where a robot stands; corners beyond are moved along x.
    """
    corners = [start]
    for row, gap in zip(ROWS, gaps, strict=True):
        x = row.gap_centre(gap)
        if len(row.posts) == 1:
            x += math.copysign(_FIRST_SPREAD * draw.random(), x - row.posts[0])
        else:
            x += _SPREAD * draw.standard_normal()
        corners += [(x, row.y - _STRAIGHT_BEFORE), (x, row.y + _STRAIGHT_AFTER)]
    beyond = FINISH_Y + 2 * LOOK_AHEAD * SPACING  # so that there is always a point to aim at
    corners.append((corners[-1][0], beyond))
    return Line(np.array([(min(x, _farthest_x(y, reach)), y) for x, y in corners]))


def _farthest_x(y: float, reach: float) -> float:
    return math.sqrt(reach**2 - y**2)
