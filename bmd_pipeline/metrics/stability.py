"""A grid of runs: which cells hold success and solved modes, and signs of instability in each run's log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.config.schema import KL_STOP
from bmd_pipeline.metrics.schemas import Plateau

Floats = NDArray[np.float64]

SUCCESS_TOLERANCE = 0.02
"""A cell holds success if it is at most this much below the best cell of its method."""
SOLVED_TOLERANCE = 0.05
"""A cell holds the modes if it solves at most this share of the task's modes fewer than the best cell."""

# ---- Which cells hold both success and solved modes, and the range of one setting in which they do ----


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


# ---- Signs of instability in the metrics.jsonl of a fine-tuning run ----

Line = Mapping[str, float | None]

INDICATORS = {
    "final_weight": "λ of the last iteration",
    "kl_peak": "largest approximate KL divergence of an update, in nats",
    "kl_spikes": "share of iterations whose KL is more than twice the limit at which an update stops early",
    "early_stops": "share of iterations whose policy update stopped early at that limit",
    "entropy_change": "change of the policy's entropy, in nats, from the first to the last tenth of its updates",
    "information_change": "change of log q(z|h) - log p(z) at the episodes' ends, first to last tenth of iterations",
    "return_variance": "variance of the mean return from one iteration to the next, its trend taken out",
}
"""What is measured, and what each number means."""


def measure_stability(lines: Sequence[Line]) -> dict[str, float]:
    """`INDICATORS` of one run, from the lines of its metrics.jsonl, one per iteration.

    A metric that the run did not report counts as 0 throughout.
    """
    # While the critic alone learns, the policy's entropy is reported as 0.
    learned = [line for line in lines if line.get("losses/policy_steps") != 0]
    return {
        "final_weight": float(_read(lines, "modes/mi_weight")[-1]),
        "kl_peak": float(_read(lines, "losses/approx_kl").max()),
        "kl_spikes": float((_read(lines, "losses/kl_share") > 2 * KL_STOP).mean()),
        "early_stops": float(_read(lines, "losses/kl_stopped").mean()),
        "entropy_change": _change(_read(learned, "losses/entropy")),
        "information_change": _change(_read(lines, "modes/final_information")),
        "return_variance": _variance_around_trend(_read(lines, "rollout/episode_return")),
    }


def _read(lines: Sequence[Line], name: str) -> Floats:
    """One metric over the iterations; what is null (not finite) or missing counts as 0."""
    return np.array([line.get(name) or 0.0 for line in lines], np.float64)


def _change(values: Floats) -> float:
    if len(values) == 0:
        return 0.0
    tenth = max(1, len(values) // 10)
    return float(values[-tenth:].mean() - values[:tenth].mean())


def _variance_around_trend(values: Floats) -> float:
    """Half the mean squared successive difference: what is left of the variance when a slow trend is taken out.

    Source: von Neumann et al. 1941, Ann. Math. Stat. 12, 153-162.
    """
    steps = np.diff(values)
    return float((steps**2).mean() / 2) if len(steps) else 0.0
