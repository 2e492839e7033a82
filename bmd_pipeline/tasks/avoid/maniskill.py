"""Avoid-v1, a registered ManiSkill environment. Importing this module imports ManiSkill.

Source: obstacle avoidance in D3IL (arXiv 2402.14606).
"""

import math
from typing import Any

import sapien
import torch
from mani_skill.agents.registration import register_agent
from mani_skill.agents.robots import PandaStick
from mani_skill.utils.registration import register_env
from torch import Tensor

from bmd_pipeline.sim.arm import ROBOT_BASE
from bmd_pipeline.sim.maniskill import PlanarControllerConfig, TabletopEnv
from bmd_pipeline.tasks.avoid import env as avoid
from bmd_pipeline.tasks.avoid_point.course import FINISH_Y, ROWS, START, Course

ENV_ID = "Avoid-v1"
_UPRIGHT_CYLINDER = sapien.Pose(q=[math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0])  # SAPIEN's cylinders lie along x


@register_agent()
class AvoidPandaStick(PandaStick):  # type: ignore[misc]  # ManiSkill ships no types
    """A Panda with a stick, steered by the planar velocity of its tip."""

    uid = "panda_stick_avoid"

    @property
    def _controller_configs(self) -> dict[str, Any]:
        stock = vars(super()._controller_configs["pd_ee_delta_pose"]["arm"])
        arm = PlanarControllerConfig(**stock, height=avoid.TIP_HEIGHT, step_metres=avoid.TIP_SPEED)
        return {"pd_ee_planar": {"arm": arm}}


@register_env(ENV_ID, max_episode_steps=300)
class AvoidEnv(TabletopEnv):
    """Six posts in three rows stand between the stick and the finish line; touching one fails."""

    SUPPORTED_ROBOTS = ["panda_stick_avoid"]
    RANDOM_DIM = avoid.AvoidTask.RANDOM_DIM
    _make_start = staticmethod(avoid.make_start)

    def _load_objects(self) -> None:
        material = sapien.render.RenderMaterial(base_color=[0.8, 0.1, 0.1, 1.0])
        half = avoid.POST_HEIGHT / 2.0
        for name, (x, radius, y) in enumerate((x, row.radius, row.y) for row in ROWS for x in row.posts):
            builder = self.scene.create_actor_builder()
            builder.add_cylinder_collision(radius=radius, half_length=half, pose=_UPRIGHT_CYLINDER)
            builder.add_cylinder_visual(radius=radius, half_length=half, pose=_UPRIGHT_CYLINDER, material=material)
            builder.initial_pose = sapien.Pose(p=[x + ROBOT_BASE[0], y + ROBOT_BASE[1], half])
            builder.build_static(name=f"post-{name}")
        self._course = Course(self.device)

    def read_state(self) -> Tensor:
        tip = self.agent.tcp.pose.p[:, :2]
        place: Tensor = tip - tip.new_tensor(ROBOT_BASE)
        return place

    def evaluate(self) -> dict[str, Tensor]:
        position = self.read_state()
        failed = self._course.is_blocked(position, avoid.BODY_RADIUS)
        return {"success": self._course.is_finished(position) & ~failed, "fail": failed}

    def compute_closeness(self) -> Tensor:
        """Share of the way from start to finish line, along y; (num_envs,)."""
        covered = (self.read_state()[:, 1] - START[1]) / (FINISH_Y - START[1])
        return torch.clamp(covered, 0.0, 1.0)

    def _get_obs_extra(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"tip": self.read_state()}
