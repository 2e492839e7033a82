"""One PushT-v1 scene on the CPU, moved by planar actions."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import PoseArm, hold_tip
from bmd_pipeline.sim.backend import renew_physics
from bmd_pipeline.tasks.pusht.geometry import START_HEIGHT, TIP_HEIGHT
from bmd_pipeline.tasks.pusht.start import NUM_JOINTS

ENV_ID, CONTROL_MODE = "PushT-v1", "pd_ee_delta_pose"


class PushTScene:
    """A PushT-v1 scene with direct stepping.

    Attributes:
        env: the unwrapped ManiSkill environment.
        arm: what steps it.
    """

    def __init__(self, env_id: str = ENV_ID) -> None:
        skip_recolouring()
        self.env = backend.make_env(env_id, control_mode=CONTROL_MODE)
        self.arm = PoseArm(self.env)
        sapien: Any = importlib.import_module("sapien")
        self._pose = sapien.Pose
        self._tee = self.env.tee._objs[0]
        self._body = self._tee.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
        self._yaw = 0.0

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `start` for the columns of a start (10,)."""
        renew_physics(self.env)
        x, y, yaw = (float(value) for value in start[NUM_JOINTS:])
        quaternion = [math.cos(yaw / 2.0), 0.0, 0.0, math.sin(yaw / 2.0)]
        self._tee.set_pose(self._pose([x, y, START_HEIGHT], quaternion))
        self._body.set_linear_velocity([0.0, 0.0, 0.0])
        self._body.set_angular_velocity([0.0, 0.0, 0.0])
        self._body.put_to_sleep()
        self._body.wake_up()  # restarts the timer after which it would fall asleep
        self.arm.place(np.array(start[:NUM_JOINTS]))
        self._yaw = yaw

    def move(self, action: Sequence[float]) -> None:
        """One control step with planar action (x, y) in [-1, 1]."""
        x, y = action
        pose = self.arm.pose
        self.arm.step(hold_tip(x, y, (*pose.p.tolist(), *pose.q.tolist()), self.arm.rotation_scale, TIP_HEIGHT))

    def read(self) -> tuple[float, float, float, float, float, float]:
        """The scene's state as a row of `state.STATE_NAMES`; the yaw is unwound from the start's."""
        tip_x, tip_y, tip_z = self.arm.pose.p.tolist()
        tee = self._tee.pose
        tee_x, tee_y, _ = tee.p.tolist()
        w, _, _, z = tee.q.tolist()
        self._yaw += math.remainder(2.0 * math.atan2(z, w) - self._yaw, 2.0 * math.pi)
        return tip_x, tip_y, tip_z, tee_x, tee_y, self._yaw


@functools.cache
def skip_recolouring() -> None:
    """Lets PushT-v1's table be built in scenes that can't render: it recolours visuals that aren't there."""
    backend.enable_headless()
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
