"""The finding of a λ sweep in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from bmd_pipeline.metrics.plateau import Floors
from bmd_pipeline.metrics.sweep import Plateau, Point


def describe_sweep(points: Sequence[Point], plateau: Plateau | None, floors: Floors, *, total_modes: int) -> str:
    """Where success and solved modes both hold, and how the controllers of λ did.

    Args:
        points: constants by rising weight, then controllers.
        plateau: the range in which both hold.
        floors: what a point must reach.
        total_modes: modes of the task.
    """
    bar = f"success of at least {floors.success:.3f} and {floors.solved:.1f} of {total_modes} modes solved"
    controllers = [point for point in points if point.weight is None]
    if not any(point.metrics["solved"].mean.value for point in points):
        return "No λ solves any mode: there is nothing to hold."
    return " ".join([_describe_plateau(plateau, bar), *map(_describe_controller, controllers)])


def _describe_plateau(plateau: Plateau | None, bar: str) -> str:
    if plateau is None:
        return f"No constant λ holds both ({bar}): here λ trades one for the other."
    if len(plateau.names) == 1:
        return f"Of the constants that were tried, only λ = {plateau.low:g} holds both ({bar})."
    width = f", {plateau.decades:.1f} decades" if plateau.decades else ""
    text = f"λ from {plateau.low:g} to {plateau.high:g} holds both ({bar}){width}."
    if plateau.open_above:
        text += " It ends at the highest λ that was tried, and may be wider."
    return text


def _describe_controller(point: Point) -> str:
    held = "holds both too" if point.holds else "does not hold both"
    return f"{point.controller} {held}, with λ = {point.stability['final_weight'].mean:.2g} in the end."
