"""λ, the weight of the mutual-information regulariser: one constant, or a multiplier of each code's obedience."""

from typing import Any

import torch
from torch import Tensor

# ---- λ as the multiplier of a constraint ----
#
# The user says how often a code shall be obeyed, and λ follows: for each code z, "obeyed_z ≥ demand" is a constraint
# whose multiplier λ_z a PID controller sets from how far it is violated. Integral control alone, which is the usual
# dual ascent, overshoots and saturates; the proportional part answers at once, the derivative part before it is too
# late.
# Source: Stooke, Achiam and Abbeel 2020 (arXiv 2007.03964).

PROPORTIONAL, INTEGRAL, DERIVATIVE = 10.0, 1.0, 10.0
"""Gains on a code's violation, the demanded share minus the obeyed one: .1 gives λ = 1 at once, .1 more with each
further iteration, and ten times its last increase."""
MAX_WEIGHT = 4.0
"""Upper bound of λ: the intrinsic stream then has λ / (1 + λ) = 4/5 of a code's advantage, and the task's reward keeps
1/5 even if the demand can't be met."""
MEMORY = 0.8
"""Decay of the counted successes per rollout; about the last five count."""
PRIOR = 10.0
"""Pseudo-count: so many successes, obeyed as often as demanded, are added. A code with few successes so has a small λ,
and can first learn to succeed."""


class Regulariser:
    """λ of each of K codes: a constant weight, or as a demand on obedience asks for.

    The demand is the share of each code's successes that shall show its own behaviour.
    """

    def __init__(self, num_codes: int, weight: float, demand: float | None = None) -> None:
        self.demand = demand
        self.weights = torch.full((num_codes,), weight if demand is None else 0.0)  # λ at present, on the CPU
        self._obeyed = torch.zeros(num_codes)  # successes that showed their code's behaviour, older ones for less
        self._count = torch.zeros(num_codes)
        self._integral = torch.zeros(num_codes)
        self._violation = torch.ones(num_codes)  # at the last update; the worst there is before the first

    def update(self, own: Tensor, success: Tensor, code: Tensor) -> None:
        """Updates λ from a rollout: which of its episodes (N,) show their code's behaviour, which succeed, and under
        which codes."""
        if self.demand is None:
            return
        num_codes = len(self.weights)
        for counted, which in ((self._obeyed, success & own), (self._count, success)):
            counted.mul_(MEMORY).add_(torch.bincount(code[which], minlength=num_codes).cpu())
        violation = self.demand - (self._obeyed + PRIOR * self.demand) / (self._count + PRIOR)
        answer = PROPORTIONAL * violation + DERIVATIVE * (violation - self._violation).clamp(min=0.0)
        grown = (self._integral + INTEGRAL * violation).clamp(min=0.0)
        # anti-windup: what a multiplier at its bound can't answer is not remembered either
        beyond = (violation > 0.0) & (answer + grown > MAX_WEIGHT)
        self._integral = torch.where(beyond, self._integral, grown)
        self.weights = (answer + self._integral).clamp(0.0, MAX_WEIGHT)
        self._violation = violation

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, as JSON values."""
        return {name: value.tolist() for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what `state` returned."""
        vars(self).update({name: torch.tensor(value) for name, value in state.items()})
