"""Straight pushes of the T, measured once in the real physics.

What a push does to the T, in the T's own frame, doesn't depend on where the T lies; so a library of measured
pushes is a model of the task that needs no friction coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bmd_pipeline.sim.arm import STEP_METRES
from bmd_pipeline.tasks.pusht.geometry import (
    CORNERS,
    STICK_RADIUS,
    Array,
    distance_to_tee,
    rotation,
)
from bmd_pipeline.tasks.pusht.scene import PushTScene
from bmd_pipeline.tasks.pusht.start import REST_QPOS

APPROACH = 0.014
"""Metres between stick and face where a push starts."""
_SPACING = 0.0125  # metres between contact points along a face
_CORNER_MARGIN = 0.008  # metres kept free at a face's ends
_ANGLES = (-0.45, 0.0, 0.45)  # rad from the face's normal
_START_CLEARANCE = 0.004  # metres between the stick and any other face
_MEASURED_TRAVEL, _TRAVEL_POINTS = 0.17, 35
_MEASURED_SPEED = 0.015  # metres per control step
_MEASURED_STEPS = 60
_LATERAL_GAIN = 0.6
_MAX_BOOST = 6.0


class LinePush:
    """Drives the tip along a line, harder while it is stalled: small commands get lost in friction.

    Args:
        start: (2,) where the line starts, in metres.
        direction: (2,) unit vector.
    """

    def __init__(self, start: Array, direction: Array) -> None:
        self._start, self._direction = start, direction
        self._boost, self._along, self._speed = 1.0, 0.0, 0.0

    def travelled(self, tip: Array) -> float:
        """How far along the line a tip (2,) is, in metres."""
        return float((tip - self._start) @ self._direction)

    def action(self, tip: Array, speed: float) -> Array:
        """Action (2,) that moves the tip (2,) on at about `speed` metres per control step."""
        along = self.travelled(tip)
        if self._speed > 0.0:
            stalled = along - self._along < 0.5 * self._speed
            self._boost = min(max(self._boost * (1.35 if stalled else 0.75), 1.0), _MAX_BOOST)
        self._along, self._speed = along, speed
        lateral = tip - self._start - along * self._direction
        step = self._direction * speed * self._boost - _LATERAL_GAIN * lateral
        return np.clip(step / STEP_METRES, -1.0, 1.0)


@dataclass(frozen=True)
class PushLibrary:
    """Measured pushes.

    Attributes:
        start: (num_contacts, 2) tip where the push starts, in the T's frame, in metres.
        angle: (num_contacts,) direction of the push in the T's frame, in rad.
        face: (num_contacts,) which face is pushed.
        travel: (num_travels,) how far the tip moves, in metres.
        motion: (num_contacts, num_travels, 3) motion of the T in its own frame after that travel.
    """

    start: Array
    angle: Array
    face: Array
    travel: Array
    motion: Array


def list_contacts() -> tuple[Array, Array, Array]:
    """Pushes worth measuring: start (num_contacts, 2), angle and face (num_contacts,) as in `PushLibrary`."""
    starts, angles, faces = [], [], []
    for face, (corner, following) in enumerate(zip(CORNERS, np.roll(CORNERS, -1, 0), strict=True)):
        length = float(np.linalg.norm(following - corner))
        tangent = (following - corner) / length
        normal = np.array([tangent[1], -tangent[0]])
        for along in np.arange(_CORNER_MARGIN, length - _CORNER_MARGIN + 1e-4, _SPACING):
            touch = corner + tangent * along + normal * STICK_RADIUS
            for turned in _ANGLES:
                direction = rotation(turned) @ -normal
                start = touch - direction * APPROACH
                free = distance_to_tee(np.stack([start, touch + normal * APPROACH]))
                if free.min() < STICK_RADIUS + _START_CLEARANCE:
                    continue
                starts.append(start)
                angles.append(np.arctan2(direction[1], direction[0]))
                faces.append(face)
    return np.array(starts), np.array(angles), np.array(faces)


def measure_pushes(scene: PushTScene) -> PushLibrary:
    """Plays every push once, in the middle of the table and along +y, and records where the T goes."""
    starts, angles, faces = list_contacts()
    travel = np.linspace(0.0, _MEASURED_TRAVEL, _TRAVEL_POINTS)
    direction = np.array([0.0, 1.0])
    qpos = _reach(scene, np.array([-0.12, -0.12]))
    motion = np.zeros((len(starts), len(travel), 3))
    for contact, (start, angle) in enumerate(zip(starts, angles, strict=True)):
        yaw = np.pi / 2.0 - angle
        scene.place([*qpos, 0.3, -0.5, 0.0])
        tip = np.array(scene.read()[:2])
        tee = np.array([*(tip - rotation(yaw) @ start), yaw])
        scene.place([*qpos, *tee])
        push = LinePush(tip, direction)
        travelled, moved = [0.0], [np.zeros(3)]
        while travelled[-1] < _MEASURED_TRAVEL and len(travelled) < _MEASURED_STEPS:
            scene.move(push.action(np.array(scene.read()[:2]), _MEASURED_SPEED).tolist())
            state = np.array(scene.read())
            shift = rotation(-yaw) @ (state[3:5] - tee[:2])
            travelled.append(push.travelled(state[:2]))
            moved.append(np.array([*shift, state[5] - yaw]))
        reached = np.maximum.accumulate(travelled)
        for k in range(3):
            motion[contact, :, k] = np.interp(travel, reached, np.array(moved)[:, k])
    return PushLibrary(starts, angles, faces, travel, motion)


def _reach(scene: PushTScene, target: Array, num_steps: int = 40) -> Array:
    """Joint angles (7,) with the tip at target (2,), found by going there with the T out of the way."""
    scene.place([*REST_QPOS, 0.3, -0.5, 0.0])
    for _ in range(num_steps):
        gap = target - np.array(scene.read()[:2])
        scene.move(np.clip(0.6 * gap / STEP_METRES, -1.0, 1.0).tolist())
    return np.array(scene.arm.qpos, np.float64)
