"""A demonstrator that reaches round the post on a wanted side, from point to point at a pace of its own."""

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.sim.arm import approach, point_down
from bmd_pipeline.tasks.reach.env import LANE, POST, ReachTask
from bmd_pipeline.tasks.reach.options import Options

_PACE = (0.3, 0.45)  # speeds of episodes, in units of action
_WAYPOINT_STD = 0.008  # metres
_ARRIVED = 0.02  # metres
_BEFORE, _BEHIND = 0.1, 0.1  # metres before and behind the post's middle between which it keeps to the lane


class ReachExpert(NoisyExpert[ReachTask]):
    """Demonstrates passing the post on the left and on the right."""

    behaviours = ("left", "right")

    def __init__(self, options: Options) -> None:
        super().__init__(ReachTask(options, 1, auto_reset=False), options.expert_noise)

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        pace = draw.uniform(*_PACE)
        points = self._plan(1.0 if self.behaviours[behaviour] == "left" else -1.0, draw)

        def act() -> NDArray[np.float64]:
            pose = self._env.state[0, 7:14].tolist()
            if len(points) > 1 and np.linalg.norm(points[0] - pose[:3]) < _ARRIVED:
                points.pop(0)
            return approach(pose, points[0], point_down(0.0), pace)

        return act

    def _plan(self, side: float, draw: np.random.Generator) -> list[NDArray[np.float64]]:
        """Points (3,) to visit, the goal last."""
        goal = self._env.state[0, 14:17].numpy().astype(np.float64)
        (x, y), height = POST, float(goal[2])
        lane = y + side * LANE
        wobble = _WAYPOINT_STD * draw.standard_normal(3)
        return [
            np.array([x - _BEFORE, lane, height]) + wobble,
            np.array([x + _BEHIND, lane, height]) + wobble,
            goal,
        ]


make_expert = ReachExpert
