"""Which push next: beam search over compositions of measured pushes in SE(2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.tasks.pusht.geometry import ARM_BASE, RADIAN_METRES, Array, compose
from bmd_pipeline.tasks.pusht.pushes import PushLibrary

Indices = NDArray[np.int64]

_DEPTH, _BEAM, _PER_CONTACT = 3, 80, 3
_LATER_PUSHES = 1600  # a fixed sample of the library serves the pushes after the first
_SHORTLIST = 4000  # expansions whose feasibility is looked at
_STEP_COST = 6e-4  # metres of final error that a control step is worth
_TOLERANCE, _MISS_COST = 0.002, 0.02  # error in metres that is as good as none; what missing it costs
_ERROR_AHEAD = 0.6  # share of the remaining error in a partial plan's priority
_WALK_SPEED, _PUSH_SPEED, _SETUP_STEPS = (
    0.033,
    0.0075,
    7.0,
)  # metres per step, and steps, that planning assumes
_MIN_TRAVEL, _MIN_MOTION = 0.0155, 1.5e-3
_REACH = (0.31, 0.76)  # metres from the base
_STRONG_REACH, _WEAK_COST = 0.37, 0.3  # nearer to the base the arm pushes weakly; cost per metre nearer


@dataclass(frozen=True)
class PlannedPush:
    """The push to do next.

    Attributes:
        start: (2,) tip where it starts, in the T's frame, in metres.
        angle: its direction in the T's frame, in rad.
        travel: how far the tip moves, in metres.
        motion: (3,) where the T should go, in its present frame.
    """

    start: Array
    angle: float
    travel: float
    motion: Array


@dataclass(frozen=True)
class _Nodes:
    """Partial plans: T poses (n, 3), tips (n, 2), costs (n,), and the first push of each (n,)."""

    pose: Array
    tip: Array
    cost: Array
    first: Indices


class Planner:
    """Plans pushes from a library; deterministic."""

    def __init__(self, library: PushLibrary) -> None:
        num_contacts, num_travels = library.motion.shape[:2]
        contact, travel = (index.ravel() for index in np.indices((num_contacts, num_travels)))
        motion = library.motion.reshape(-1, 3)
        moved = np.hypot(motion[:, 0], motion[:, 1]) + RADIAN_METRES * np.abs(motion[:, 2])
        worth = (moved > _MIN_MOTION) & (library.travel[travel] > _MIN_TRAVEL)
        self._contact, self._motion = contact[worth], motion[worth]
        self._travel = library.travel[travel[worth]]
        self._start, self._angle = library.start[self._contact], library.angle[self._contact]
        self._face = library.face[self._contact]
        self._end = self._start + self._travel[:, None] * np.stack([np.cos(self._angle), np.sin(self._angle)], 1)
        self._all: Indices = np.arange(len(self._contact))
        count = min(_LATER_PUSHES, len(self._all))
        self._sample: Indices = np.sort(np.random.default_rng(1).choice(self._all, count, replace=False))

    def plan(
        self, pose: Array, tip: Array, goal: Array, first_faces: tuple[int, ...] | None = None
    ) -> PlannedPush | None:
        """Finds the first push of the best plan.

        Args:
            pose: (3,) present pose of the T, yaw in the same winding as the goal's.
            tip: (2,) present tip.
            goal: (3,) wanted pose of the T.
            first_faces: faces that the first push may use; None allows all.

        Returns:
            The push, or None where every push is out of reach.
        """
        pushes = self._all if first_faces is None else self._all[np.isin(self._face, first_faces)]
        nodes = _Nodes(pose[None], tip[None], np.zeros(1), np.full(1, -1))
        best_cost, best = np.inf, -1
        for _ in range(_DEPTH):
            parent, push, error, nodes = self._expand(nodes, pushes, goal)
            if len(push) == 0:
                break
            total = nodes.cost + np.maximum(error - _TOLERANCE, 0.0) + _MISS_COST * (error > _TOLERANCE)
            if total.min() < best_cost:
                best_cost, best = total.min(), int(nodes.first[total.argmin()])
            nodes = self._prune(nodes, error, parent, push)
            pushes = self._sample
        if best < 0:
            return None
        return PlannedPush(self._start[best], float(self._angle[best]), float(self._travel[best]), self._motion[best])

    def _expand(self, nodes: _Nodes, pushes: Indices, goal: Array) -> tuple[Indices, Indices, Array, _Nodes]:
        """Appends every push to every plan; keeps what is promising and within reach.

        Returns:
            Parent, push and remaining error of each new plan, all (m,), and the plans.
        """
        cos, sin = np.cos(nodes.pose[:, 2])[:, None], np.sin(nodes.pose[:, 2])[:, None]
        motion = self._motion[pushes]
        shift_x = nodes.pose[:, :1] - goal[0] + cos * motion[:, 0] - sin * motion[:, 1]
        shift_y = nodes.pose[:, 1:2] - goal[1] + sin * motion[:, 0] + cos * motion[:, 1]
        turn = RADIAN_METRES * (nodes.pose[:, 2:] - goal[2] + motion[:, 2])
        error = np.sqrt(shift_x * shift_x + shift_y * shift_y + turn * turn)  # (plans, pushes)
        fixed = _STEP_COST * (_SETUP_STEPS + self._travel[pushes] / _PUSH_SPEED)
        priority = (_ERROR_AHEAD * error + nodes.cost[:, None] + fixed).ravel()
        if priority.size > _SHORTLIST:
            chosen = np.argpartition(priority, _SHORTLIST)[:_SHORTLIST]
        else:
            chosen = np.arange(priority.size)
        parent, column = np.divmod(chosen, len(pushes))
        push = pushes[column]
        pose = compose(nodes.pose[parent], self._motion[push])
        at = nodes.pose[parent]
        zero = np.zeros(len(push))
        start = compose(at, np.column_stack([self._start[push], zero]))[:, :2]
        end = compose(at, np.column_stack([self._end[push], zero]))[:, :2]
        walk = np.sqrt(((start - nodes.tip[parent]) ** 2).sum(1)) / _WALK_SPEED
        nearest, farthest = np.minimum(_radius(start), _radius(end)), np.maximum(_radius(start), _radius(end))
        weak = _WEAK_COST * np.maximum(_STRONG_REACH - nearest, 0.0)
        cost = nodes.cost[parent] + fixed[column] + _STEP_COST * walk + weak
        ok = (nearest > _REACH[0]) & (farthest < _REACH[1]) & (np.abs(end[:, 1]) < 0.5)
        ok &= (np.abs(pose[:, 1]) < 0.32) & (np.abs(pose[:, 0] + 0.175) < 0.225)
        first = np.where(nodes.first[parent] < 0, push, nodes.first[parent])
        return parent[ok], push[ok], error.ravel()[chosen][ok], _Nodes(pose[ok], end[ok], cost[ok], first[ok])

    def _prune(self, nodes: _Nodes, error: Array, parent: Indices, push: Indices) -> _Nodes:
        """Keeps the most promising plans, few of which may share parent and contact."""
        order = np.argsort(nodes.cost + _ERROR_AHEAD * error, kind="stable")[: 6 * _BEAM]
        kept: list[int] = []
        seen: dict[tuple[int, int], int] = {}
        for node in order:
            key = int(parent[node]), int(self._contact[push[node]])
            seen[key] = seen.get(key, 0) + 1
            if seen[key] <= _PER_CONTACT:
                kept.append(int(node))
            if len(kept) == _BEAM:
                break
        return _Nodes(nodes.pose[kept], nodes.tip[kept], nodes.cost[kept], nodes.first[kept])


def _radius(tip: Array) -> Array:
    """Distances (n,) of tips (n, 2) from the arm's base."""
    radius: Array = np.sqrt(((tip - ARM_BASE) ** 2).sum(1))
    return radius
