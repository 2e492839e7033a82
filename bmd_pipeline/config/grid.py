"""Settings of a grid of runs: what is crossed with the methods and seeds of a run."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section


class GridConfig(Section):
    """Every `-bmd` method of the run is fine-tuned with every λ and K here, at every seed of the run."""

    weights: tuple[Annotated[float, Field(ge=0.0, le=1000.0)], ...] = Field((), max_length=64)
    """Constant λ, in rising order; none: the run's own."""
    num_modes: tuple[Annotated[int, Field(ge=2, le=1000)], ...] = Field((), max_length=64)
    """Numbers of codes K, in rising order, taken by k-means; none: the run's own, or what it finds."""

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to cross."""
        return bool(self.weights or self.num_modes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        lists: tuple[tuple[str, tuple[float, ...]], ...] = (("weights", self.weights), ("num_modes", self.num_modes))
        for name, values in lists:
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} must rise, got {list(values)}")
        return self
