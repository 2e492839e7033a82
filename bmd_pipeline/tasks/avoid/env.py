"""Avoid: the course on ManiSkill's table, one Avoid-v1 scene on the CPU, and the task as a batch of episodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim import arm as robot
from bmd_pipeline.sim.arm import ROBOT_BASE, ArmScene
from bmd_pipeline.sim.backend import SceneTask, reset_physics
from bmd_pipeline.sim.render import Camera, ManiSkillFilming
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid_point.course import Referee, compute_obs, make_course_spec

# ---- Where the course stands on the table, and how the stick moves over it ----
#
# The course's origin is where the robot stands, as in D3IL. Starts are rows of joint angles, states rows of
# (x, y) of the tip, on the course and in metres.

TIP_HEIGHT = 0.03
"""Height in metres at which the tip is held: the posts are 0.1 tall."""
BODY_RADIUS = 0.01
"""Metres from a post at which the tip counts as touching it: the stick's radius and 2 mm."""
POST_HEIGHT = 0.1
TIP_SPEED = 0.012
"""Metres that the tip covers in a control step along each axis at action 1."""
REST_QPOS = (-0.3547, 0.5293, -0.1327, -2.0436, 0.123, 2.5656, 0.3153)
"""Joint angles in rad with the tip upright at the course's start."""
_QPOS_SPREAD = 0.02
_SCALE = TIP_SPEED / robot.STEP_METRES


def make_start(random: Tensor) -> Tensor:
    """Joint angles (n, 7) in rad from uniform numbers (n, 7); the tip starts within about 2 cm."""
    return random.new_tensor(REST_QPOS) + _QPOS_SPREAD * (2.0 * random - 1.0)


class AvoidScene(ArmScene):
    """An Avoid-v1 scene."""

    def place(self, start: Sequence[float]) -> None:
        reset_physics(self.env)
        self.arm.place(np.array(start))

    def move(self, action: Sequence[float]) -> None:
        x, y = action
        self.arm.step_planar(_SCALE * x, _SCALE * y, TIP_HEIGHT)

    def read(self) -> tuple[float, float]:
        x, y, _ = self.arm.pose.p.tolist()
        return x - ROBOT_BASE[0], y - ROBOT_BASE[1]


class AvoidTask(SceneTask):
    """The obstacle course for a Panda with a stick; the track is the tip's position (x, y) in metres."""

    ENV_MODULE, SCENE = "bmd_pipeline.tasks.avoid.maniskill", AvoidScene
    STATE_DIM, RANDOM_DIM = 2, 7
    options: Options

    def __init__(self, options: Options, num_envs: int, first_row: int = 0, **settings: Any) -> None:
        super().__init__(options, num_envs, first_row, **settings)
        self.referee = Referee(options, num_envs, BODY_RADIUS, self.device)

    @classmethod
    def make_spec(cls, options: Options) -> TaskSpec:
        return make_course_spec("Avoid", options, options.horizon, control_hz=20.0)

    _make_start = staticmethod(make_start)

    def _begin(self) -> None:
        self.referee.restart()

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.referee.evaluate(after)

    def _observe(self) -> Tensor:
        return compute_obs(self.state, self.options.position_frequencies)

    def track(self) -> Tensor:
        return self.state.clone()


make_spec, make_env = AvoidTask.make_spec, AvoidTask.make_env
FILMING = ManiSkillFilming(  # from before the robot, with the start on the left; steeply, to see each gap
    Camera((0.3, 0.04, 0.8), (-0.14, 0.04, 0.02), fov=0.85),
    lambda state: (state[0] + ROBOT_BASE[0], state[1] + ROBOT_BASE[1], TIP_HEIGHT),
    AvoidTask.ENV_MODULE,
)
