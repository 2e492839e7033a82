"""Moving the hand of the Kitchen's arm to a place, for the demonstrator: damped least squares on the arm's joints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.tasks.kitchen.layout import REST_ARM
from bmd_pipeline.tasks.kitchen.scene import MAX_SPEED, STEP_SECONDS, KitchenScene

FORWARD = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
"""Orientation of a hand that points at the kitchen; about that of the start."""
_RESPONSE = np.array([0.5] * 4 + [0.62] * 3)
"""Share of a commanded motion that a joint makes within a control step (from its gain and damping)."""
_MAX_TURN = 0.15  # rad a step
_DAMPING, _POSTURE_GAIN = 2e-3, 0.1


def approach(scene: KitchenScene, target: NDArray[np.float64], speed: float, stiffness: float) -> NDArray[np.float64]:
    """Action of the arm that moves the hand towards a place.

    Args:
        scene: the kitchen.
        target: (3,) where the hand should go.
        speed: metres a control step, at most.
        stiffness: what a radian off `FORWARD` weighs against a metre off the way.

    Returns:
        (7,) action in [-1, 1].
    """
    state = scene.read()
    shift = target - np.array(state[9:12])
    shift *= min(1.0, speed / max(float(np.linalg.norm(shift)), 1e-9))
    orientation, jacobian = scene.locate_hand()
    turn = 0.5 * np.cross(orientation, FORWARD, axis=0).sum(1)
    weights = np.array([1.0] * 3 + [stiffness] * 3)
    weighted = weights[:, None] * jacobian
    wanted = weights * np.r_[shift, stiffness * np.clip(turn, -_MAX_TURN, _MAX_TURN)]
    motion = weighted.T @ np.linalg.solve(weighted @ weighted.T + _DAMPING * np.eye(6), wanted)
    posture = _POSTURE_GAIN * (np.array(REST_ARM) - np.array(state[:7]))
    motion += posture - np.linalg.pinv(jacobian, rcond=0.05) @ (jacobian @ posture)  # leaves the hand where it is
    action: NDArray[np.float64] = (motion / _RESPONSE + scene.compute_sag()) / (MAX_SPEED * STEP_SECONDS)
    return action / max(1.0, float(np.abs(action).max()))
