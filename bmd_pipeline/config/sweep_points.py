"""The points of the λ sweep: their names, and a run's settings at each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bmd_pipeline.config.messages import suggest
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.errors import ConfigError


@dataclass(frozen=True)
class SweepPoint:
    """One value or controller of λ.

    Attributes:
        controller: who decides λ.
        weight: λ, or None where the controller decides.
    """

    controller: str
    weight: float | None

    @property
    def name(self) -> str:
        """Name of its folder: "weight-0.1", "dual"."""
        return self.controller if self.weight is None else f"weight-{self.weight!r}".removesuffix(".0")

    def settings(self) -> dict[str, Any]:
        """What it changes in `finetune.regulariser`."""
        weight = {} if self.weight is None else {"mi_weight": self.weight}
        return {"controller": self.controller, **weight}

    def assignments(self) -> list[str]:
        """The same as options of `bmd-pipeline`: `--set name=value`."""
        return [
            part
            for name, value in self.settings().items()
            for part in ("--set", f"finetune.regulariser.{name}={value}")
        ]


UNGUARDED = {"min_obeyed_share": 0.0}
"""What the sweep changes in `finetune.selection`: success alone decides which iteration is kept. By default an early
one, whose codes still tell, would be kept where a small λ lets the modes go, and λ would look as if it held them."""


def list_points(config: RunConfig) -> list[SweepPoint]:
    """The points of a run's sweep: constants by weight, then controllers."""
    constants = [SweepPoint("constant", weight) for weight in config.sweep.weights]
    return constants + [SweepPoint(controller, None) for controller in config.sweep.controllers]


def find_point(config: RunConfig, name: str) -> SweepPoint:
    """The point of this name.

    Raises:
        ConfigError: the sweep has none; suggests the nearest.
    """
    points = {point.name: point for point in list_points(config)}
    if name not in points:
        raise ConfigError(f"sweep.weights and sweep.controllers name no point {name!r}; {suggest(name, points)}")
    return points[name]


def configure_swept(config: RunConfig, point: SweepPoint) -> RunConfig:
    """The run at a point of the sweep."""
    selection = config.finetune.selection.model_copy(update=UNGUARDED)
    finetune = config.finetune.model_copy(update={"selection": selection})
    return configure_point(config.model_copy(update={"finetune": finetune}), point)


def swept_assignments(point: SweepPoint) -> list[str]:
    """The same as options of `bmd-pipeline`."""
    extra = [part for name, value in UNGUARDED.items() for part in ("--set", f"finetune.selection.{name}={value}")]
    return point.assignments() + extra


def configure_point(config: RunConfig, point: SweepPoint) -> RunConfig:
    """The run at a point: only the regulariser differs, so that all earlier stages are shared."""
    values = config.finetune.regulariser.model_dump() | point.settings()
    regulariser = type(config.finetune.regulariser).model_validate(values)
    finetune = config.finetune.model_copy(update={"regulariser": regulariser})
    return config.model_copy(update={"finetune": finetune})
