"""Settings of the λ sweep."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Once, Seeds


class SweepConfig(Section):
    """Which weights of the regulariser are tried, on which method and seeds."""

    method: Literal["dppo-bmd", "res-bmd", "dsrl-bmd"] = "dppo-bmd"
    """The method that is fine-tuned at each point."""
    weights: tuple[Annotated[float, Field(ge=0.0, le=1000.0)], ...] = Field(
        (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), min_length=2, max_length=64
    )
    """Constant λ, in rising order; 0 keeps the codes and drops the regulariser."""
    controllers: Annotated[tuple[Literal["linear", "cosine", "dual", "occupancy"], ...], Once] = ("dual", "occupancy")
    """Controllers that choose λ themselves, with their settings in `finetune.regulariser`."""
    seeds: Seeds = (0, 1, 2)
    """Training seeds of each point."""
    success_tolerance: float = Field(0.02, ge=0.0, lt=1.0)
    """A point holds success if it is at most this much below the best constant λ."""
    solved_tolerance: float = Field(0.05, ge=0.0, lt=1.0)
    """A point holds the modes if it solves at most this share of the task's modes fewer than the best constant λ."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.weights) != sorted(set(self.weights)):
            raise ValueError(f"weights must rise, got {list(self.weights)}")
        return self
