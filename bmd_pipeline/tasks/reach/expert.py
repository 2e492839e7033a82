"""An expert that reaches round the post on a wanted side, from point to point at a pace of its own."""

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.sim.arm import approach, point_down
from bmd_pipeline.tasks.reach.env import LANE, POST, SIDES, ReachTask
from bmd_pipeline.tasks.reach.options import Options

_PACE = (0.3, 0.45)  # speeds of episodes, in units of action
_WAYPOINT_STD = 0.008  # metres
_ARRIVED = 0.02  # metres
_BEFORE, _BEHIND = 0.1, 0.1  # metres before and behind the post's middle between which it keeps to the lane


class ReachExpert(NoisyExpert[ReachTask]):
    """Demonstrates passing the post on the left and on the right."""

    behaviours = SIDES

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        pace = draw.uniform(*_PACE)
        goal = self._env.state[0, 14:17].numpy().astype(np.float64)
        lane = POST[1] + (LANE if self.behaviours[behaviour] == "left" else -LANE)
        wobble = _WAYPOINT_STD * draw.standard_normal(3)
        points = [np.array([x, lane, goal[2]]) + wobble for x in (POST[0] - _BEFORE, POST[0] + _BEHIND)]
        points.append(goal)

        def act() -> NDArray[np.float64]:
            pose = self._env.state[0, 7:14].tolist()
            if len(points) > 1 and np.linalg.norm(points[0] - pose[:3]) < _ARRIVED:
                points.pop(0)
            return approach(pose, points[0], point_down(0.0), pace)

        return act


def make_expert(options: Options) -> ReachExpert:
    return ReachExpert(ReachTask(options, 1), options.expert_noise)
