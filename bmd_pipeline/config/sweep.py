"""Settings of the λ sweep."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.finetune import METHODS


class SweepConfig(Section):
    """Which weights of the regulariser are tried, on which method and seeds."""

    method: str = "dsrl-bmd"
    """The method that is fine-tuned at each point."""
    weights: tuple[float, ...] = Field((0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=2, max_length=64)
    """Constant λ, in rising order; 0 keeps the codes and drops the regulariser."""
    controllers: tuple[Literal["linear", "cosine", "dual", "occupancy"], ...] = ("dual", "occupancy")
    """Controllers that choose λ themselves, with their settings in `finetune.regulariser`."""
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Training seeds of each point."""
    success_tolerance: float = Field(0.02, ge=0.0, lt=1.0)
    """A point holds success if it is at most this much below the best constant λ."""
    coverage_tolerance: float = Field(0.05, ge=0.0, lt=1.0)
    """A point holds coverage if it is at most this much (a share of the task's modes) below the best constant λ."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = [method for method in METHODS if method.endswith("-bmd")]
        if self.method not in known:
            raise ValueError(f"method must be one of {', '.join(known)}, got {self.method}")
        if list(self.weights) != sorted(set(self.weights)) or not 0 <= self.weights[0] <= self.weights[-1] <= 1000:
            raise ValueError(f"weights must rise within [0, 1000], got {list(self.weights)}")
        for name, values in (("controllers", self.controllers), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must not repeat, got {list(values)}")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds must be >= 0, got {min(self.seeds)}")
        return self
