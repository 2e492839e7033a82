"""LiftBar-v1, a registered ManiSkill environment. Importing this module imports ManiSkill."""

from typing import Any

import sapien
import torch
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs import Pose
from torch import Tensor

from bmd_pipeline.sim.arm import make_quaternion
from bmd_pipeline.sim.maniskill import TabletopEnv
from bmd_pipeline.tasks.lift import env as lift
from bmd_pipeline.tasks.lift.options import Options

ENV_ID = "LiftBar-v1"
_DEFAULTS = Options()


@register_env(ENV_ID, max_episode_steps=200)
class LiftBarEnv(TabletopEnv):
    """A bar must be grasped at one of its two ends and lifted."""

    SUPPORTED_ROBOTS = ["panda"]
    CONTROL_MODE = "pd_ee_delta_pose"
    RANDOM_DIM = lift.LiftTask.RANDOM_DIM

    def __init__(
        self,
        *args: Any,
        lift_height: float = _DEFAULTS.lift_height,
        yaw_range_deg: float = _DEFAULTS.yaw_range_deg,
        **settings: Any,
    ) -> None:
        self._lift_height = lift_height
        self._yaw_range_deg = yaw_range_deg
        super().__init__(*args, **settings)

    def _load_objects(self) -> None:
        builder = self.scene.create_actor_builder()
        for half_length, half_width, colour in (
            (lift.HALF_LENGTH, lift.HANDLE_HALF_WIDTH, [0.8, 0.7, 0.2, 1.0]),
            (lift.BODY_HALF_LENGTH, lift.BODY_HALF_WIDTH, [0.1, 0.2, 0.7, 1.0]),
        ):
            half_size = [half_length, half_width, lift.HALF_HEIGHT]
            builder.add_box_collision(half_size=half_size, density=lift.DENSITY)
            builder.add_box_visual(half_size=half_size, material=sapien.render.RenderMaterial(base_color=colour))
        builder.initial_pose = sapien.Pose(p=[*lift.BAR_MIDDLE, lift.HALF_HEIGHT])
        self.bar = builder.build(name="bar")

    def _make_start(self, random: Tensor) -> Tensor:
        return lift.make_start(random, self._yaw_range_deg)

    def _place_objects(self, placement: Tensor) -> None:
        height = torch.full_like(placement[:, :1], lift.HALF_HEIGHT)
        position = torch.cat((placement[:, :2], height), 1)
        self.bar.set_pose(Pose.create_from_pq(position, make_quaternion(placement[:, 2])))

    def read_state(self) -> Tensor:
        return torch.cat((self.agent.robot.get_qpos(), self.agent.tcp.pose.raw_pose, self.bar.pose.raw_pose), 1)

    def evaluate(self) -> dict[str, Tensor]:
        height = lift.compute_lift(self.read_state())
        return {"success": height >= self._lift_height, "height": height}

    def compute_closeness(self) -> Tensor:
        return lift.compute_closeness(self.read_state(), self._lift_height)

    def _get_obs_extra(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"tip": self.agent.tcp.pose.raw_pose, "bar": self.bar.pose.raw_pose}
