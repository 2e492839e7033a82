"""A scripted PushT expert whose behaviour can be cloned: measured pushes, a planner, a walk round the T."""

import functools
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.sim.arm import ROBOT_BASE, STEP_METRES
from bmd_pipeline.tasks.pusht.env import (
    BEHAVIOURS,
    CORNERS,
    GOAL,
    MASS_CENTRE,
    RADIAN_METRES,
    REST_QPOS,
    SIDE_FACES,
    TURNS,
    PushTScene,
    PushTTask,
)
from bmd_pipeline.tasks.pusht.options import Options

# ---- Poses (x, y, yaw) in the plane, in metres and radians, and the T's outline ----

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ARM_BASE: Array = np.array(ROBOT_BASE)
"""Where the arm stands (x, y)."""
STICK_RADIUS = 0.008
_BAR, _STEM = np.array([-0.1, -0.025, 0.1, 0.025]), np.array([-0.025, 0.025, 0.025, 0.175])
_BOXES: Array = np.array([_BAR, _STEM]) - [0.0, MASS_CENTRE, 0.0, MASS_CENTRE]


def rotation(yaw: Array | float) -> Array:
    """Rotation matrices (..., 2, 2) of yaw (...,)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def compose(pose: Array, motion: Array) -> Array:
    """Poses (..., 3) after a motion (..., 3) given in their own frame; yaw stays unwrapped."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = pose[..., 0] + cos * motion[..., 0] - sin * motion[..., 1]
    y = pose[..., 1] + sin * motion[..., 0] + cos * motion[..., 1]
    return np.stack([x, y, pose[..., 2] + motion[..., 2]], -1)


def pose_distance(pose: Array, goal: Array) -> Array:
    """Distance in metres of poses (..., 3), with radians weighed by RADIAN_METRES and not wrapped."""
    shift = pose[..., :2] - goal[..., :2]
    turn = RADIAN_METRES * (pose[..., 2] - goal[..., 2])
    distance: Array = np.sqrt(shift[..., 0] ** 2 + shift[..., 1] ** 2 + turn**2)
    return distance


def distance_to_tee(points: Array) -> Array:
    """Distance (...,) in metres of points (..., 2) in the T's frame to the T; 0 inside."""
    gaps = [np.maximum(np.maximum(box[:2] - points, points - box[2:]), 0.0) for box in _BOXES]
    nearest: Array = np.minimum(*(np.sqrt(gap[..., 0] ** 2 + gap[..., 1] ** 2) for gap in gaps))
    return nearest


# ---- Walking the tip round the T without touching it: a visibility graph in the T's frame ----
#
# Its nodes are the T's corners, moved outwards. The arm can't fold up arbitrarily, so a disc round its base is
# an obstacle too.

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


class Walkway:
    """Shortest ways round the T that neither touch it nor leave the arm's reach."""

    def __init__(self) -> None:
        before, after = CORNERS - np.roll(CORNERS, 1, 0), np.roll(CORNERS, -1, 0) - CORNERS
        tangents = before / np.abs(before).sum(1, keepdims=True) + after / np.abs(after).sum(1, keepdims=True)
        self._nodes = CORNERS + _NODE_OFFSET * np.stack([tangents[:, 1], -tangents[:, 0]], 1)
        self._edges = _segments(self._nodes[:, None], self._nodes[None])  # (8, 8, 14, 2)
        self._length = np.linalg.norm(self._nodes[:, None] - self._nodes[None], axis=-1)
        self._length[distance_to_tee(self._edges).min(-1) <= _EDGE_CLEARANCE] = _BLOCKED

    def next_waypoint(self, tip: Array, goal: Array, base: Array) -> Array:
        """Where (2,) a tip (2,) should head for next: the goal (2,) itself as soon as the straight way there is free.

        All are in the T's frame; base (2,) is where the arm stands.
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


# ---- Straight pushes of the T, measured once in the real physics ----
#
# What a push does to the T, in the T's own frame, doesn't depend on where the T lies; so a library of measured
# pushes is a model of the task that needs no friction coefficients.

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
    """Drives the tip along a line from start (2,) in a direction (2,), a unit vector, harder while it is stalled: small
    commands get lost in friction."""

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
    """Measured pushes, in metres and rad in the T's frame."""

    start: Array  # (num_contacts, 2) tip where the push starts
    angle: Array  # (num_contacts,) direction of the push
    face: Indices  # (num_contacts,) which face is pushed
    travel: Array  # (num_travels,) how far the tip moves
    motion: Array  # (num_contacts, num_travels, 3) motion of the T after that travel


def list_contacts() -> tuple[Array, Array, Indices]:
    """Pushes worth measuring: start (num_contacts, 2), angle and face (num_contacts,) as in `PushLibrary`."""
    found = []
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
                if free.min() >= STICK_RADIUS + _START_CLEARANCE:
                    found.append((*start, np.arctan2(direction[1], direction[0]), face))
    contacts = np.array(found)
    return contacts[:, :2], contacts[:, 2], contacts[:, 3].astype(np.int64)


def measure_pushes(scene: PushTScene) -> PushLibrary:
    """Plays every push once, in the middle of the table and along +y, and records where the T goes."""
    starts, angles, faces = list_contacts()
    travel = np.linspace(0.0, _MEASURED_TRAVEL, _TRAVEL_POINTS)
    qpos = _reach(scene, np.array([-0.12, -0.12]))
    motion = np.zeros((len(starts), len(travel), 3))
    for contact, (start, angle) in enumerate(zip(starts, angles, strict=True)):
        yaw = np.pi / 2.0 - angle
        scene.place([*qpos, 0.3, -0.5, 0.0])
        tip = np.array(scene.read()[:2])
        tee = np.array([*(tip - rotation(yaw) @ start), yaw])
        scene.place([*qpos, *tee])
        push = LinePush(tip, np.array([0.0, 1.0]))
        travelled, moved = [0.0], [np.zeros(3)]
        while travelled[-1] < _MEASURED_TRAVEL and len(travelled) < _MEASURED_STEPS:
            scene.move(push.action(np.array(scene.read()[:2]), _MEASURED_SPEED).tolist())
            state = np.array(scene.read())
            shift = rotation(-yaw) @ (state[3:5] - tee[:2])
            travelled.append(push.travelled(state[:2]))
            moved.append(np.array([*shift, state[5] - yaw]))
        reached = np.maximum.accumulate(travelled)
        motion[contact] = np.stack([np.interp(travel, reached, part) for part in np.array(moved).T], 1)
    return PushLibrary(starts, angles, faces, travel, motion)


def _reach(scene: PushTScene, target: Array) -> Array:
    """Joint angles (7,) with the tip at target (2,), found by going there with the T out of the way."""
    scene.place([*REST_QPOS, 0.3, -0.5, 0.0])
    for _ in range(40):
        gap = target - np.array(scene.read()[:2])
        scene.move(np.clip(0.6 * gap / STEP_METRES, -1.0, 1.0).tolist())
    return np.array(scene.arm.qpos, np.float64)


# ---- Which push next: beam search over compositions of measured pushes in SE(2) ----

_DEPTH, _BEAM, _PER_CONTACT = 3, 80, 3
_LATER_PUSHES = 1600  # a fixed sample of the library serves the pushes after the first
_SHORTLIST = 4000  # expansions whose feasibility is looked at
_STEP_COST = 6e-4  # metres of final error that a control step is worth
_TOLERANCE, _MISS_COST = 0.002, 0.02  # error in metres that is as good as none; what missing it costs
_ERROR_AHEAD = 0.6  # share of the remaining error in a partial plan's priority
_PLANNED_WALK_SPEED, _PLANNED_PUSH_SPEED, _SETUP_STEPS = 0.033, 0.0075, 7.0  # metres per step; steps, as assumed
_MIN_TRAVEL, _MIN_MOTION = 0.0155, 1.5e-3
_REACH = (0.31, 0.76)  # metres from the base
_STRONG_REACH, _WEAK_COST = 0.37, 0.3  # nearer to the base the arm pushes weakly; cost per metre nearer


@dataclass(frozen=True)
class PlannedPush:
    """The push to do next, in metres and rad in the T's present frame."""

    start: Array  # (2,) tip where it starts
    angle: float  # its direction
    travel: float  # how far the tip moves
    motion: Array  # (3,) where the T should go


class _Nodes(NamedTuple):
    """Partial plans."""

    pose: Array  # (n, 3) of the T
    tip: Array  # (n, 2)
    cost: Array  # (n,)
    first: Indices  # (n,) the first push of each


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

    def plan(self, pose: Array, tip: Array, goal: Array, faces: tuple[int, ...] | None = None) -> PlannedPush | None:
        """The first push of the best plan, or None where every push is out of reach.

        Args:
            pose: (3,) present pose of the T, yaw in the same winding as the goal's.
            tip: (2,) present tip.
            goal: (3,) wanted pose of the T.
            faces: those that the first push may use; None allows all.
        """
        pushes = self._all if faces is None else self._all[np.isin(self._face, faces)]
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

        Returns parent, push and remaining error of each new plan, all (m,), and the plans.
        """
        cos, sin = np.cos(nodes.pose[:, 2])[:, None], np.sin(nodes.pose[:, 2])[:, None]
        motion = self._motion[pushes]
        shift_x = nodes.pose[:, :1] - goal[0] + cos * motion[:, 0] - sin * motion[:, 1]
        shift_y = nodes.pose[:, 1:2] - goal[1] + sin * motion[:, 0] + cos * motion[:, 1]
        turn = RADIAN_METRES * (nodes.pose[:, 2:] - goal[2] + motion[:, 2])
        error = np.sqrt(shift_x * shift_x + shift_y * shift_y + turn * turn)  # (plans, pushes)
        fixed = _STEP_COST * (_SETUP_STEPS + self._travel[pushes] / _PLANNED_PUSH_SPEED)
        priority = (_ERROR_AHEAD * error + nodes.cost[:, None] + fixed).ravel()
        if priority.size > _SHORTLIST:
            chosen = np.argpartition(priority, _SHORTLIST)[:_SHORTLIST]
        else:
            chosen = np.arange(priority.size)
        parent, column = np.divmod(chosen, len(pushes))
        push = pushes[column]
        at, zero = nodes.pose[parent], np.zeros(len(push))
        start, end = (compose(at, np.column_stack([place[push], zero]))[:, :2] for place in (self._start, self._end))
        pose = compose(at, self._motion[push])
        walk = np.sqrt(((start - nodes.tip[parent]) ** 2).sum(1)) / _PLANNED_WALK_SPEED
        radius = np.sqrt(((np.stack([start, end]) - ARM_BASE) ** 2).sum(-1))  # distances from the arm's base
        nearest, farthest = radius.min(0), radius.max(0)
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
        seen: Counter[tuple[int, int]] = Counter()
        for node in order:
            key = int(parent[node]), int(self._contact[push[node]])
            seen[key] += 1
            if seen[key] <= _PER_CONTACT:
                kept.append(int(node))
            if len(kept) == _BEAM:
                break
        return _Nodes(nodes.pose[kept], nodes.tip[kept], nodes.cost[kept], nodes.first[kept])


# ---- A scripted PushT expert whose behaviour can be cloned ----
#
# The stick stays down and the action is planar, as for the policy: the expert walks round the T along a
# visibility graph, pushes from a measured library, and plans again after each push. (An expert that lifts the
# stick succeeds as often, but cloned policies land on the T.)

_WALK_SPEED, _PUSH_SPEED, _SLOWEST = 0.03, 0.017, 0.003  # metres per control step
_WALK_STEPS, _PUSH_STEPS = 45, 40  # give up and plan again after so many
_AT_START, _AT_END = 0.005, 0.002  # metres within which a walk, a push has arrived
_SLOW_DOWN = 0.75


class PushTExpert(NoisyExpert[PushTTask]):
    """Solves PushT in a wanted direction of turning, touching the T first on a wanted side."""

    behaviours = BEHAVIOURS

    def __init__(self, options: Options) -> None:
        super().__init__(PushTTask(options, 1), options.expert_noise)
        self._planner = Planner(measure_pushes(self._env.simulation.scenes[0]))
        self._walkway = Walkway()

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        turn, side = self.behaviours[behaviour].split("-")
        return functools.partial(next, self._act(TURNS[turn], SIDE_FACES[side]), None)

    def _draw_noise(self, draw: np.random.Generator) -> Array:
        return self._noise_std * draw.standard_normal((self._env.spec.horizon, 2))  # without memory

    def _tip(self) -> Array:
        return self._env.state[0, :2].numpy().astype(np.float64)

    def _tee(self) -> Array:
        """Pose of the T (3,), yaw unwrapped."""
        return self._env.state[0, 3:].numpy().astype(np.float64)

    def _act(self, turn: int, faces: tuple[int, ...] | None) -> Iterator[Array]:
        """Clean actions (2,), each an answer to the scene as it then is, until no push is in reach."""
        yaw = self._tee()[2]
        ahead = (GOAL[2] - yaw) % (2.0 * np.pi)
        goal = np.array([GOAL[0], GOAL[1], yaw + (ahead if turn > 0 else ahead - 2.0 * np.pi)])
        while push := self._planner.plan(self._tee(), self._tip(), goal, faces):
            if (yield from self._walk(push.start)):
                yield from self._push(push)
                faces = None

    def _walk(self, start: Array) -> Generator[Array, None, bool]:
        """Walks round the T to a point (2,) in its frame; returns whether it got there."""
        for _ in range(_WALK_STEPS):
            tee = self._tee()
            frame = rotation(tee[2])
            tip = frame.T @ (self._tip() - tee[:2])
            if np.linalg.norm(tip - start) < _AT_START:
                return True
            waypoint = self._walkway.next_waypoint(tip, start, frame.T @ (ARM_BASE - tee[:2]))
            gap = waypoint - tip
            distance = float(np.linalg.norm(gap))
            last = np.allclose(waypoint, start)
            speed = min(_WALK_SPEED, _SLOW_DOWN * distance if last else max(distance, 0.01))
            yield np.clip(frame @ gap * (speed / max(distance, 1e-6) / STEP_METRES), -1.0, 1.0)
        return False

    def _push(self, push: PlannedPush) -> Iterator[Array]:
        """Pushes along the planned line until the T is where it should be, or gets no nearer."""
        tee = self._tee()
        start, target = compose(tee, np.array([*push.start, 0.0]))[:2], compose(tee, push.motion)
        angle = tee[2] + push.angle
        line = LinePush(start, np.array([np.cos(angle), np.sin(angle)]))
        nearest = np.inf
        for _ in range(_PUSH_STEPS):
            left = push.travel - line.travelled(self._tip())
            yield line.action(self._tip(), min(max(0.7 * left, _SLOWEST), _PUSH_SPEED))
            error = float(pose_distance(self._tee(), target))
            if left < _AT_END or (error > nearest + 5e-4 and left < 0.03):
                return
            nearest = min(nearest, error)


make_expert = PushTExpert
