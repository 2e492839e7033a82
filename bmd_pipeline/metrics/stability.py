"""A grid of runs: which cells hold success and solved modes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bmd_pipeline.metrics.schemas import Plateau

SUCCESS_TOLERANCE = 0.02
"""A cell holds success if it is at most this much below the best cell of its method."""
SOLVED_TOLERANCE = 0.05
"""A cell holds the modes if it solves at most this share of the task's modes fewer than the best cell."""


@dataclass(frozen=True)
class Floors:
    """What a cell must reach to hold."""

    success: float  # least success rate
    solved: float  # least number of solved modes

    def hold(self, success: float, solved: float) -> bool:
        """Whether both are reached, up to rounding; where no mode is solved there is nothing to hold."""
        return success >= self.success - 1e-9 and solved >= max(self.solved - 1e-9, 1e-9)


def set_floors(
    successes: Sequence[float], solved: Sequence[float], success_tolerance: float, solved_tolerance: float
) -> Floors:
    """Floors below the best that any cell reached; `solved_tolerance` is a number of modes."""
    return Floors(max(0.0, max(successes) - success_tolerance), max(0.0, max(solved) - solved_tolerance))


def find_plateau(names: Sequence[str], values: Sequence[float], holds: Sequence[bool]) -> Plateau | None:
    """The widest run of neighbouring cells that hold, by the rising values of the one setting that varies.

    Of equally wide ones it is the one with most cells; None if no cell holds.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.array(holds, int), [0]])))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    if not runs:
        return None
    first, end = max(runs, key=lambda run: (_decades(values[slice(*run)]), run[1] - run[0]))
    lowest_positive = next((i for i, value in enumerate(values) if value > 0), len(values))
    return Plateau(
        names=list(names[first:end]),
        low=values[first],
        high=values[end - 1],
        decades=_decades(values[first:end]),
        open_below=first <= lowest_positive,
        open_above=end == len(values),
    )


def _decades(values: Sequence[float]) -> float:
    """log10 of the highest value over the lowest one above 0."""
    positive = [value for value in values if value > 0]
    return math.log10(positive[-1] / positive[0]) if positive else 0.0
