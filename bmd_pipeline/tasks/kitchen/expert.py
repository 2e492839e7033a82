"""An expert that does two things in a wanted order."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.tasks.kitchen.env import (
    MAX_SPEED,
    ORDERS,
    REST_ARM,
    STEP_SECONDS,
    THINGS,
    KitchenScene,
    KitchenTask,
    locate_handle,
)
from bmd_pipeline.tasks.kitchen.options import Options

# ---- Moving the hand to a place: damped least squares on the arm's joints ----

FORWARD = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Orientation of a hand that points at the kitchen; about that of the start."""
_RESPONSE = np.array([0.5] * 4 + [0.62] * 3)
"""Share of a commanded motion that a joint makes within a control step (from its gain and damping)."""
_MAX_TURN = 0.15  # rad a step
_DAMPING, _POSTURE_GAIN = 2e-3, 0.1


def approach(scene: KitchenScene, target: NDArray[np.float64], speed: float, stiffness: float) -> NDArray[np.float64]:
    """Action (7,) of the arm in [-1, 1] that moves the hand towards target (3,), at most `speed` metres a control step.

    A radian off `FORWARD` weighs `stiffness` against a metre off the way.
    """
    state = scene.read()
    shift = target - np.array(state[9:12])
    shift *= min(1.0, speed / max(float(np.linalg.norm(shift)), 1e-9))
    orientation, jacobian = scene.compute_hand_kinematics()
    turn = 0.5 * np.cross(orientation, FORWARD, axis=0).sum(1)
    weights = np.array([1.0] * 3 + [stiffness] * 3)
    weighted = weights[:, None] * jacobian
    wanted = weights * np.r_[shift, stiffness * np.clip(turn, -_MAX_TURN, _MAX_TURN)]
    motion = weighted.T @ np.linalg.solve(weighted @ weighted.T + _DAMPING * np.eye(6), wanted)
    posture = _POSTURE_GAIN * (np.array(REST_ARM) - np.array(state[:7]))
    motion += posture - np.linalg.pinv(jacobian, rcond=0.05) @ (jacobian @ posture)  # leaves the hand where it is
    action: NDArray[np.float64] = (motion / _RESPONSE + scene.compute_sag()) / (MAX_SPEED * STEP_SECONDS)
    return action / max(1.0, float(np.abs(action).max()))


# ---- How each thing in the kitchen is done: places that the hand visits, one after the other ----


@dataclass(frozen=True)
class Waypoint:
    """A place to visit."""

    place: tuple[float, float, float]  # in metres from where the thing's handle is when the skill begins
    speed: float  # metres a control step
    within: float  # distance in metres that counts as there
    stiffness: float  # see `approach`


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


# ---- An expert that does two things in a wanted order, at a pace of its own; it tries again what didn't work ----

_PACE = (0.85, 1.15)  # speeds of episodes, as factors
_WAYPOINT_STD = 0.004  # metres
_PATIENCE = 25  # control steps on the way to a place


class KitchenExpert(NoisyExpert[KitchenTask]):
    """Demonstrates each order of two things; doing them in another order counts as a failure."""

    behaviours = ORDERS
    noiseless = (7, 8)  # the fingers stay shut

    def __init__(self, options: Options) -> None:
        super().__init__(KitchenTask(options, 1), options.expert_noise)
        self._scene: KitchenScene = self._env.simulation.scenes[0]

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        self._things = ORDERS[behaviour].split("-")
        self._first: str | None = None
        return functools.partial(next, self._act(draw))  # it draws from the first action on, after the noise

    def _has_shown(self, behaviour: int) -> bool:
        first, second = self._things
        return self._first == first and self._is_done(second)

    def _is_done(self, thing: str) -> bool:
        return bool(self._env.best[0, THINGS.index(thing)] > 1.0)

    def _act(self, draw: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Clean actions (9,), each an answer to the scene as it then is.

        Once a thing is done, the hand goes to the last waypoint of its skill and then home. A waypoint that is not
        reached within _PATIENCE steps is skipped; a thing that is still not done is tried again.
        """
        pace, turn = draw.uniform(*_PACE), 0
        while True:
            thing = self._things[turn]
            handle = locate_handle(self._env.state, thing)[0].numpy()
            route, retreat, index = (*SKILLS[thing], HOME), len(SKILLS[thing]) - 1, 0
            while index < len(route):
                waypoint = route[index]
                origin = np.zeros(3) if waypoint is HOME else handle
                target = origin + np.array(waypoint.place) + _WAYPOINT_STD * draw.standard_normal(3)
                for _ in range(_PATIENCE):
                    arm = approach(self._scene, target, pace * waypoint.speed, waypoint.stiffness)
                    yield np.append(arm, (-1.0, -1.0))  # the fingers are shut
                    self._first = self._first or next(filter(self._is_done, THINGS), None)
                    is_leaving = index < retreat and self._is_done(thing)
                    if is_leaving or np.linalg.norm(target - self._env.state[0, 9:12].numpy()) < waypoint.within:
                        break
                index = retreat if is_leaving else index + 1
            turn = min(turn + self._is_done(thing), len(self._things) - 1)


make_expert = KitchenExpert
