"""One PushT-v1 scene on the CPU, moved by planar actions."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.sim import headless
from bmd_pipeline.sim.arm import PoseArm
from bmd_pipeline.sim.planar import hold_tip
from bmd_pipeline.sim.renewal import renew_physics
from bmd_pipeline.tasks.pusht.geometry import START_HEIGHT, TIP_HEIGHT
from bmd_pipeline.tasks.pusht.overlap import GoalOverlap

ENV_ID, CONTROL_MODE = "PushT-v1", "pd_ee_delta_pose"


class Scene:
    """A PushT-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self) -> None:
        skip_recolouring()
        self.env = headless.make_env(ENV_ID, control_mode=CONTROL_MODE)
        self.arm = PoseArm(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._tee = self.env.tee._objs[0]
        self._body = self._tee.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)

    def overlap(self) -> GoalOverlap:
        """The task's success measure."""
        return GoalOverlap.of_env(self.env)

    def place(self, qpos: NDArray[np.float64], tee: NDArray[np.float64]) -> None:
        """Starts afresh, at rest: arm at joint angles qpos (7,), T at pose tee (3,); nothing of the past remains."""
        renew_physics(self.env)
        x, y, yaw = (float(value) for value in tee)
        quaternion = [math.cos(yaw / 2.0), 0.0, 0.0, math.sin(yaw / 2.0)]
        self._tee.set_pose(self._pose([x, y, START_HEIGHT], quaternion))
        self._body.set_linear_velocity([0.0, 0.0, 0.0])
        self._body.set_angular_velocity([0.0, 0.0, 0.0])
        self._body.put_to_sleep()
        self._body.wake_up()  # restarts the timer after which it would fall asleep
        self.arm.place(qpos)

    def move(self, x: float, y: float) -> None:
        """One control step with planar action (x, y) in [-1, 1]."""
        pose = self.arm.pose
        self.arm.step(hold_tip(x, y, (*pose.p.tolist(), *pose.q.tolist()), self.arm.rotation_scale, TIP_HEIGHT))

    def read(self) -> tuple[float, float, float, float, float, float]:
        """The scene's state as a row of `state.STATE_NAMES`."""
        tip_x, tip_y, tip_z = self.arm.pose.p.tolist()
        tee = self._tee.pose
        tee_x, tee_y, _ = tee.p.tolist()
        w, _, _, z = tee.q.tolist()
        return tip_x, tip_y, tip_z, tee_x, tee_y, 2.0 * math.atan2(z, w)


@functools.cache
def skip_recolouring() -> None:
    """Lets PushT-v1's table be built in scenes that can't render: it recolours visuals that aren't there."""
    headless.enable()
    push_t: Any = importlib.import_module("mani_skill.envs.tasks.tabletop.push_t")
    table: Any = importlib.import_module("mani_skill.utils.scene_builder.table")
    builder = push_t.WhiteTableSceneBuilder
    recolouring = builder.build

    def build(self: Any) -> None:
        if self.scene.can_render():
            recolouring(self)
        else:
            table.TableSceneBuilder.build(self)

    builder.build = build
