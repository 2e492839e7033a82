"""How each thing in the kitchen is done: places that the hand visits, one after the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Waypoint:
    """A place to visit.

    Attributes:
        place: (x, y, z) in metres from where the thing's handle is when the skill begins.
        speed: metres a control step.
        within: distance in metres that counts as there.
        stiffness: see `servo.approach`.
    """

    place: tuple[float, float, float]
    speed: float
    within: float
    stiffness: float


_FREE, _STRAIGHT = 0.01, 0.1  # stiffnesses: near the arm's base the hand can't point forward
HOME = Waypoint((-0.43, 0.12, 2.03), 0.06, 0.06, _STRAIGHT)
"""Where the hand goes between two skills, in the world's frame: each begins as if it were the first."""

SKILLS: dict[str, tuple[Waypoint, ...]] = {
    "kettle": (
        Waypoint((0.0, -0.28, -0.10), 0.05, 0.05, _FREE),
        Waypoint((0.0, -0.20, -0.14), 0.04, 0.03, _FREE),
        Waypoint((0.02, 0.16, -0.14), 0.03, 0.04, _FREE),
        Waypoint((0.02, 0.03, -0.05), 0.05, 0.07, _FREE),
    ),
    "light": (
        Waypoint((0.07, -0.16, 0.0), 0.05, 0.05, _STRAIGHT),
        Waypoint((0.06, -0.02, 0.0), 0.04, 0.03, _STRAIGHT),
        Waypoint((-0.10, 0.0, 0.0), 0.03, 0.02, _STRAIGHT),
        Waypoint((-0.16, 0.05, 0.0), 0.03, 0.03, _STRAIGHT),
        Waypoint((-0.06, -0.14, 0.0), 0.05, 0.07, _STRAIGHT),
    ),
    "slide": (
        Waypoint((-0.09, -0.14, 0.0), 0.05, 0.05, _STRAIGHT),
        Waypoint((-0.08, 0.0, 0.0), 0.04, 0.03, _STRAIGHT),
        Waypoint((0.25, 0.0, 0.0), 0.035, 0.05, _STRAIGHT),
        Waypoint((0.18, -0.14, -0.03), 0.05, 0.07, _STRAIGHT),
    ),
}
"""The last place of each leads away from the thing, once it is done."""
