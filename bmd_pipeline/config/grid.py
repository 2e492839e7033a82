"""Settings of a grid of runs: what is crossed with the methods and seeds of a run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section


class GridConfig(Section):
    """Every `-bmd` method of the run is fine-tuned with every λ and K here, at every seed of the run."""

    weights: tuple[float, ...] = Field((), max_length=64)
    """Constant λ, in rising order; none: the run's own."""
    num_modes: tuple[int, ...] = Field((), max_length=64)
    """Numbers of codes K, in rising order; none: the run's own."""

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to cross."""
        return bool(self.weights or self.num_modes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bounds: tuple[tuple[str, tuple[float, ...], int], ...] = (
            ("weights", self.weights, 0),
            ("num_modes", self.num_modes, 2),
        )
        for name, values, lowest in bounds:
            if list(values) != sorted(set(values)) or any(not lowest <= value <= 1000 for value in values):
                raise ValueError(f"{name} must rise within [{lowest}, 1000], got {list(values)}")
        return self
