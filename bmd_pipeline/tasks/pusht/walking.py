"""Walking the tip round the T without touching it: a visibility graph in the T's frame.

Its nodes are the T's corners, moved outwards. The arm can't fold up arbitrarily, so a disc round its base is
an obstacle too.
"""

from __future__ import annotations

import numpy as np

from bmd_pipeline.tasks.pusht.geometry import CORNERS, Array, distance_to_tee

MIN_REACH = 0.305
"""Nearest in metres that the tip comes to the arm's base: just outside of what the controller keeps free."""
_CLEARANCE = 0.017  # metres that the tip's centre keeps from the T where it can
_TOO_CLOSE = 0.0155  # nearer than this, first step back
_BACK_OFF = 0.014
_NODE_OFFSET, _EDGE_CLEARANCE = 0.024, 0.019
_ARRIVED = 0.006
_SAMPLES: Array = np.linspace(0.0, 1.0, 14)[:, None]
_BLOCKED = 1e3


def _segments(start: Array, end: Array) -> Array:
    """Points (..., 14, 2) along segments (..., 2)-(..., 2)."""
    return start[..., None, :] + (end - start)[..., None, :] * _SAMPLES


def _offset_corners() -> Array:
    before, after = CORNERS - np.roll(CORNERS, 1, 0), np.roll(CORNERS, -1, 0) - CORNERS
    tangents = before / np.abs(before).sum(1, keepdims=True) + after / np.abs(after).sum(1, keepdims=True)
    return CORNERS + _NODE_OFFSET * np.stack([tangents[:, 1], -tangents[:, 0]], 1)


class Walkway:
    """Shortest ways round the T that neither touch it nor leave the arm's reach."""

    def __init__(self) -> None:
        self._nodes = _offset_corners()
        self._edges = _segments(self._nodes[:, None], self._nodes[None])  # (8, 8, 14, 2)
        self._length = np.linalg.norm(self._nodes[:, None] - self._nodes[None], axis=-1)
        self._length[distance_to_tee(self._edges).min(-1) <= _EDGE_CLEARANCE] = _BLOCKED

    def next_waypoint(self, tip: Array, goal: Array, base: Array) -> Array:
        """Where to head for next.

        Args:
            tip: (2,) where the tip is, in the T's frame, as all of these.
            goal: (2,) where it should go.
            base: (2,) where the arm stands.

        Returns:
            (2,) the goal itself as soon as the straight way there is free.
        """
        free, goal_free = distance_to_tee(np.stack([tip, goal]))
        reach = min(MIN_REACH, *(float(np.linalg.norm(point - base)) - 1e-3 for point in (tip, goal)))
        if free < _TOO_CLOSE:
            if self._lengths(tip, goal[None], base, free - 1e-3, reach)[0] < _BLOCKED:
                return goal
            angle = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
            around = tip + _BACK_OFF * np.stack([np.cos(angle), np.sin(angle)], 1)
            away: Array = around[distance_to_tee(around).argmax()]
            return away
        clearance = min(_CLEARANCE, free - 1e-4, goal_free - 1e-4)
        points = np.concatenate([self._nodes, goal[None]])  # (9, 2)
        from_tip = self._lengths(tip, points, base, clearance, reach)
        if from_tip[-1] < _BLOCKED:
            return goal
        to_goal = self._lengths(goal, self._nodes, base, clearance, reach)
        in_reach = _min_distance(self._edges, base) > reach
        length = np.full((9, 9), _BLOCKED)
        length[:8, :8] = np.where(in_reach, self._length, _BLOCKED)
        length[:8, 8], length[8, 8] = to_goal, 0.0
        remaining = length[:, 8]
        for _ in range(len(points) - 2):  # Bellman-Ford
            remaining = (length + remaining).min(1)
        node = int(from_tip.argmin())
        if from_tip[node] < _ARRIVED:
            from_tip = length[node].copy()
            from_tip[node] = np.inf
        waypoint: Array = points[(from_tip + remaining).argmin()]
        return waypoint

    def _lengths(self, point: Array, others: Array, base: Array, clearance: float, reach: float) -> Array:
        """Length of the straight ways between point (2,) and others (n, 2), large where blocked; (n,)."""
        ways = _segments(np.broadcast_to(point, others.shape), others)
        clear = (distance_to_tee(ways).min(-1) > clearance) & (_min_distance(ways, base) > reach)
        return np.where(clear, np.linalg.norm(others - point, axis=1), _BLOCKED)


def _min_distance(ways: Array, point: Array) -> Array:
    """Smallest distance (...,) of sampled ways (..., 14, 2) from a point (2,)."""
    gap = ways - point
    nearest: Array = np.sqrt((gap[..., 0] ** 2 + gap[..., 1] ** 2).min(-1))
    return nearest
