"""The obstacle course: posts and gaps, what a policy sees, who fails or finishes, lines for experts to follow."""

import functools
import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.tasks.avoid_point.options import CourseOptions

# ---- The obstacle course, and which way through it a path takes ----
#
#   y
#  0.35  ------------------- finish line -------------------
#  0.26          1     o     2     o     3     o     4
#  0.08             L        o     M     o        R
# -0.10                   L        o        R
# -0.28                              * start
#                               x = 0.5
#
# A path is classified by the gap it takes in each row of posts: 2 · 3 · 4 = 24 modes, one for each homotopy class of
# paths that never turn back. Lengths are in metres. Nothing here knows how the course is walked: a point and a
# robot's tip share it.
#
# Source: obstacle avoidance in D3IL (arXiv 2402.14606).


@dataclass(frozen=True)
class Row:
    """Posts side by side."""

    y: float  # where the row stands
    posts: tuple[float, ...]  # x of its posts, from the left
    radius: float  # of each post
    gaps: tuple[str, ...]  # names of the gaps from the left; the outer two lie beside the posts

    def gap_centre(self, gap: int) -> float:
        """x in metres at which a path passes a gap: its middle, or OUTER_OFFSET beside the outermost post."""
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
        edges = [[*row.posts, *[math.inf] * (most - len(row.posts))] for row in ROWS]
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

    def update_gaps(self, gaps: Tensor, position: Tensor) -> Tensor:
        """Updates gaps (..., 3) by a step to position (..., 2): a row's is fixed when the path first reaches its y.

        Takes and returns int64: the gap taken in each row so far, or NOT_REACHED.
        """
        reached = (gaps == NOT_REACHED) & (position[..., 1:] >= self.row_y)
        return torch.where(reached, self._gaps_at(position[..., 0]), gaps)

    def trace(self, track: Tensor) -> Tensor:
        """Gap taken in each row, (N, 3) int64 or NOT_REACHED, of paths (T, N, 2); equals `update_gaps` along them."""
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


# ---- What a policy sees of its place on the course ----

CENTRE = (0.5, 0.035)
SCALE = (0.15, 0.2)
"""Position of order one: (position - CENTRE) / SCALE, in metres."""


def make_course_spec(name: str, options: CourseOptions, horizon: int, control_hz: float | None = None) -> TaskSpec:
    """Fixed facts of a task on the course; its track is the place (x, y) in metres."""
    octaves = (2**octave for octave in range(1, options.position_frequencies + 1))
    places = (f"{axis} from the course's middle ({unit} m)" for axis, unit in zip("xy", SCALE, strict=True))
    waves = (
        f"{wave} of {factor} times that {axis}" for factor in octaves for wave in ("sine", "cosine") for axis in "xy"
    )
    return TaskSpec(
        name,
        obs_dim=2 + 4 * options.position_frequencies,
        action_dim=2,
        track_names=("x", "y"),
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=horizon,
        control_hz=control_hz,
        obs_names=(*places, *waves),
    )


def compute_obs(position: Tensor, frequencies: int) -> Tensor:
    """Position p (num_envs, 2) at order one, then sin(2p), cos(2p), sin(4p), cos(4p), … up to `frequencies` octaves.

    The result is (num_envs, 2 + 4 * frequencies).
    """
    centre, scale, octaves = _make_obs_scale(frequencies, position.dtype, position.device)
    scaled = (position - centre) / scale
    angles = scaled[:, None] * octaves  # (num_envs, F, 2)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (num_envs, F, 4)
    return torch.cat([scaled, waves.flatten(1)], dim=1)


@functools.cache  # a device waits whenever the host sends it numbers, and no CUDA graph may hold that
def _make_obs_scale(frequencies: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Centre (2,), scale (2,) and the factor of every octave (F, 1)."""
    centre, scale = torch.tensor((CENTRE, SCALE), dtype=dtype, device=device).unbind()
    return centre, scale, 2.0 ** torch.arange(1, frequencies + 1, device=device)[:, None]


# ---- Who has failed, who has finished, and what that pays: the rules of the course for a batch of walkers ----


class Referee:
    """Follows walkers through the course. Touching a post or leaving the field ends an episode as a failure.

    A walker's centre may come as near as `body_radius` metres to a post.

    Attributes:
        gaps: (num_envs, 3) int64 gap that each walker took in each row, or NOT_REACHED; changed in place.
    """

    def __init__(self, options: CourseOptions, num_envs: int, body_radius: float, device: torch.device | str) -> None:
        self.gaps = torch.full((num_envs, len(ROWS)), NOT_REACHED, device=device)
        self._course = Course(device)
        self._body_radius = body_radius
        # what crossing the finish line pays, and each favoured gap on the way
        self._pay, self._bonus = (0.25, 0.25) if options.reward == "shifted" else (1.0, 0.0)
        self._favoured = torch.tensor(options.favoured_gaps, device=device)  # (3,)

    def restart(self) -> None:
        """Forgets the way of all walkers."""
        self.gaps.fill_(NOT_REACHED)

    def evaluate(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, terminated and success, each (num_envs,), of a control step to position (num_envs, 2) in metres."""
        self.gaps.copy_(self._course.update_gaps(self.gaps, position))
        failed = self._course.is_blocked(position, self._body_radius)
        success = self._course.is_finished(position) & ~failed
        pay = self._pay + self._bonus * (self.gaps == self._favoured).sum(dim=-1)
        return pay * success, success | failed, success


# ---- Lines through the course for experts to follow ----

SPACING = 0.002
"""Metres between two points of a line."""
LOOK_AHEAD = 8
"""How many points ahead of the nearest one an expert aims: a bit more than a step."""
_STRAIGHT_BEFORE, _STRAIGHT_AFTER = 0.035, 0.03  # metres before and behind a row in which the line runs straight
_FIRST_SPREAD = 0.04  # beside the first row's only post there is room
_SPREAD = 0.008  # standard deviation of the line's place in a gap of the other rows


class Line:
    """A line through given corners (n, 2), to be followed."""

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
    """A line from the episode's start through the wanted gap in each row; `draw` shifts it within the gaps.

    `reach` is the farthest distance in metres from the origin, where a robot stands; corners beyond are moved along x.
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
    return Line(np.array([(min(x, math.sqrt(reach**2 - y**2)), y) for x, y in corners]))
