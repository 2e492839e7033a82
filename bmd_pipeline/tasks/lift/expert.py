"""An expert that lifts the bar by a wanted end, from point to point at a pace of its own.

It follows the bar's present pose, so that a bar that was pushed aside is still grasped.
"""

import math

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.environments.base import Act, NoisyExpert
from bmd_pipeline.sim.arm import approach, point_down
from bmd_pipeline.tasks.lift.env import ENDS, GRASP_AT, LiftTask
from bmd_pipeline.tasks.lift.options import Options

_PACE = (0.3, 0.45)  # speeds of episodes, in units of action
_GRASP_STD = 0.006  # metres along the bar
_HOVER, _CARRY = 0.1, 0.25  # metres above the bar's middle before grasping, above the table after
_ABOVE, _ARRIVED = 0.02, 0.008  # metres within which it has arrived above, at the handle
_CLOSING_STEPS = 6
OPEN, CLOSED = 1.0, -1.0


class LiftExpert(NoisyExpert[LiftTask]):
    """Demonstrates lifting by the near and by the far end."""

    behaviours = ENDS
    noiseless = (6,)  # the gripper is open or shut

    def _begin(self, behaviour: int, draw: np.random.Generator) -> Act:
        pace = draw.uniform(*_PACE)
        side = 1.0 if self.behaviours[behaviour] == "far" else -1.0
        grasp_at = side * (GRASP_AT + _GRASP_STD * draw.standard_normal())
        phase, closing_steps = "hover", 0

        def act() -> NDArray[np.float64]:
            nonlocal phase, closing_steps
            state = self._env.state[0].numpy().astype(np.float64)
            tip, bar = state[9:16], state[16:19]
            w, x, y, z = state[19:23]
            yaw = math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
            handle = bar + grasp_at * np.array([math.cos(yaw), math.sin(yaw), 0.0])
            hover = handle + np.array([0.0, 0.0, _HOVER])
            if phase == "hover" and np.linalg.norm(tip[:3] - hover) < _ABOVE:
                phase = "descend"
            elif phase == "descend" and np.linalg.norm(tip[:3] - handle) < _ARRIVED:
                phase = "close"
            elif phase == "close":
                closing_steps += 1
                if closing_steps >= _CLOSING_STEPS:
                    phase = "lift"
            lifted = np.array([tip[0], tip[1], _CARRY])
            target = {"hover": hover, "lift": lifted}.get(phase, handle)
            grip = OPEN if phase in ("hover", "descend") else CLOSED
            return np.append(approach(tip.tolist(), target, point_down(yaw), pace), grip)

        return act


def make_expert(options: Options) -> LiftExpert:
    return LiftExpert(LiftTask(options, 1), options.expert_noise)
