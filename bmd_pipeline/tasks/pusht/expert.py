"""A scripted PushT demonstrator whose behaviour can be cloned.

The stick stays down and the action is planar, as for the policy: the expert walks round the T along a
visibility graph, pushes from a measured library, and plans again after each push. (An expert that lifts the
stick succeeds as often, but cloned policies land on the T.)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.sim.arm import STEP_METRES
from bmd_pipeline.tasks.pusht.geometry import (
    ARM_BASE,
    BEHAVIOURS,
    GOAL,
    SIDE_FACES,
    TURNS,
    Array,
    compose,
    pose_distance,
    rotation,
)
from bmd_pipeline.tasks.pusht.options import Options
from bmd_pipeline.tasks.pusht.planner import PlannedPush, Planner
from bmd_pipeline.tasks.pusht.pushes import LinePush, measure_pushes
from bmd_pipeline.tasks.pusht.task import PushTTask
from bmd_pipeline.tasks.pusht.walking import Walkway

_WALK_SPEED, _PUSH_SPEED, _SLOWEST = 0.03, 0.017, 0.003  # metres per control step
_WALK_STEPS, _PUSH_STEPS = 45, 40  # give up and plan again after so many
_AT_START, _AT_END = 0.005, 0.002  # metres within which a walk, a push has arrived
_SLOW_DOWN = 0.75


class PushTExpert:
    """Solves PushT in a wanted direction of turning, touching the T first on a wanted side.

    Args:
        options: the task's settings.
        noise: standard deviation of the noise added to executed actions; None takes the setting's.

    Attributes:
        behaviours: names of what `demonstrate` can be asked for.
    """

    behaviours: tuple[str, ...] = BEHAVIOURS

    def __init__(self, options: Options, noise: float | None = None) -> None:
        self._noise = options.expert_noise if noise is None else noise
        self._env = PushTTask(options, 1, auto_reset=False)
        self._planner = Planner(measure_pushes(self._env.simulation.scenes[0]))  # type: ignore[attr-defined]
        self._walkway = Walkway()

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one episode; the same seed gives the same episode.

        Args:
            behaviour: index into `behaviours`.
            seed: decides the start and the noise.

        Returns:
            The episode with the clean actions, before noise, and the observations they answer.
        """
        turn, side = self.behaviours[behaviour].split("-")
        # not (seed, behaviour): seed sequences ignore trailing zeros, and (seed, 0, 0) draws the start
        generator = np.random.default_rng((seed, 0, 0, 1 + behaviour))
        obs = self._env.reset(seed)
        observations, actions = [], []
        success = False
        for action in self._act(TURNS[turn], SIDE_FACES[side]):
            observations.append(obs[0].numpy())
            actions.append(action.astype(np.float32))
            noisy = action + self._noise * generator.standard_normal(2)
            transition = self._env.step(torch.tensor(noisy, dtype=torch.float32)[None])
            obs = transition.obs
            if bool(transition.done):
                success = bool(transition.success)
                break
        return Episode(np.stack(observations), np.stack(actions), success, behaviour)

    def close(self) -> None:
        """Releases the simulator."""
        self._env.close()

    def _tip(self) -> Array:
        return self._env.state[0, :2].numpy().astype(np.float64)

    def _tee(self) -> Array:
        """Pose of the T (3,), yaw unwrapped."""
        return self._env.state[0, 3:].numpy().astype(np.float64)

    def _act(self, turn: int, first_faces: tuple[int, ...]) -> Iterator[Array]:
        """Clean actions (2,), each an answer to the scene as it then is, without end."""
        yaw = self._tee()[2]
        ahead = (GOAL[2] - yaw) % (2.0 * np.pi)
        goal = np.array([GOAL[0], GOAL[1], yaw + (ahead if turn > 0 else ahead - 2.0 * np.pi)])
        faces: tuple[int, ...] | None = first_faces
        while True:
            push = self._planner.plan(self._tee(), self._tip(), goal, faces)
            if push is None:
                return
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
        start = compose(tee, np.array([*push.start, 0.0]))[:2]
        target = compose(tee, push.motion)
        angle = tee[2] + push.angle
        line = LinePush(start, np.array([np.cos(angle), np.sin(angle)]))
        nearest = np.inf
        for _ in range(_PUSH_STEPS):
            left = push.travel - line.travelled(self._tip())
            yield line.action(self._tip(), min(max(0.7 * left, _SLOWEST), _PUSH_SPEED))
            error = float(pose_distance(self._tee(), target))
            worse = error > nearest + 5e-4 and left < 0.03
            if left < _AT_END or worse:
                return
            nearest = min(nearest, error)


def make_expert(options: Options) -> PushTExpert:
    """Builds the demonstrator."""
    return PushTExpert(options)
