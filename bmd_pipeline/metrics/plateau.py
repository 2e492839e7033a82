"""The range of λ in which success and solved modes both hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WeightScore:
    """What a constant λ reached, mean over seeds.

    Attributes:
        weight: λ.
        success: success rate.
        solved: modes that are solved.
    """

    weight: float
    success: float
    solved: float


@dataclass(frozen=True)
class Floors:
    """What a point must reach to hold.

    Attributes:
        success: least success rate.
        solved: least number of solved modes.
    """

    success: float
    solved: float

    def hold(self, success: float, solved: float) -> bool:
        """Whether both are reached, up to rounding; where no mode is solved there is nothing to hold."""
        return success >= self.success - 1e-9 and solved >= max(self.solved - 1e-9, 1e-9)


@dataclass(frozen=True)
class Range:
    """Neighbouring weights that all hold.

    Attributes:
        first: index of the lowest one.
        last: index of the highest one.
        decades: log10 of their ratio, 0 counting as the next weight above it.
    """

    first: int
    last: int
    decades: float


def set_floors(scores: Sequence[WeightScore], success_tolerance: float, solved_tolerance: float) -> Floors:
    """Floors below the best that any constant λ reached; `solved_tolerance` is a number of modes."""
    return Floors(
        max(0.0, max(score.success for score in scores) - success_tolerance),
        max(0.0, max(score.solved for score in scores) - solved_tolerance),
    )


def find_plateau(scores: Sequence[WeightScore], floors: Floors) -> Range | None:
    """The widest run of neighbouring weights that hold; of equally wide ones the one with most points.

    Args:
        scores: by rising weight.
        floors: what they must reach.

    Returns:
        the range, or None if no weight holds.
    """
    held = np.array([floors.hold(score.success, score.solved) for score in scores])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], held.astype(int), [0]])))
    ranges = [
        Range(int(first), int(end) - 1, _decades([score.weight for score in scores[first:end]]))
        for first, end in zip(edges[::2], edges[1::2], strict=True)
    ]
    return max(ranges, key=lambda found: (found.decades, found.last - found.first), default=None)


def _decades(weights: Sequence[float]) -> float:
    positive = [weight for weight in weights if weight > 0]
    return math.log10(positive[-1] / positive[0]) if positive else 0.0
