"""How each thing in the kitchen is done: places that the hand visits, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

OPEN, SHUT = 1.0, -1.0


@dataclass(frozen=True)
class Waypoint:
    """A place to visit.

    Attributes:
        offset: (x, y, z) in metres from where the thing's handle is when the skill begins.
        speed: metres a control step.
        within: distance in metres that counts as there.
        fingers: open or shut on the way there.
    """

    offset: tuple[float, float, float]
    speed: float
    within: float
    fingers: float = SHUT


@dataclass(frozen=True)
class Skill:
    """How a thing is done.

    Attributes:
        waypoints: the last one leads away from the thing, once it is done.
        stiffness: see `servo.approach`.
    """

    waypoints: tuple[Waypoint, ...]
    stiffness: float


SKILLS: dict[str, Skill] = {
    "microwave": Skill(
        (
            Waypoint((0.03, -0.22, 0.06), 0.05, 0.06, OPEN),
            Waypoint((0.0, -0.10, 0.02), 0.04, 0.035, OPEN),
            Waypoint((0.0, -0.02, 0.02), 0.03, 0.03, OPEN),
            Waypoint((0.0, -0.03, 0.02), 0.01, 0.0),  # closes the fingers until the time for it is up
            Waypoint((-0.03, -0.16, 0.02), 0.03, 0.05),
            Waypoint((-0.12, -0.36, 0.02), 0.035, 0.07),
            Waypoint((-0.05, -0.40, 0.10), 0.05, 0.08, OPEN),
        ),
        stiffness=0.01,
    ),
    "kettle": Skill(
        (
            Waypoint((0.0, -0.28, -0.10), 0.05, 0.05),
            Waypoint((0.0, -0.20, -0.14), 0.04, 0.03),
            Waypoint((0.02, 0.16, -0.14), 0.03, 0.04),
            Waypoint((0.02, 0.03, -0.05), 0.05, 0.07),
        ),
        stiffness=0.01,
    ),
    "light": Skill(
        (
            Waypoint((0.12, -0.16, 0.0), 0.05, 0.05),
            Waypoint((0.11, 0.0, 0.0), 0.04, 0.03),
            Waypoint((-0.10, 0.02, 0.0), 0.03, 0.02),
            Waypoint((-0.16, 0.05, 0.0), 0.03, 0.03),
            Waypoint((-0.06, -0.14, 0.0), 0.05, 0.07),
        ),
        stiffness=0.03,
    ),
    "slide": Skill(
        (
            Waypoint((-0.09, -0.14, 0.0), 0.05, 0.05),
            Waypoint((-0.08, 0.0, 0.0), 0.04, 0.03),
            Waypoint((0.25, 0.0, 0.0), 0.035, 0.05),
            Waypoint((0.18, -0.14, -0.03), 0.05, 0.07),
        ),
        stiffness=0.03,
    ),
}
