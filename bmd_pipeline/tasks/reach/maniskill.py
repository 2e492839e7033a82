"""ReachAroundPost-v1, a registered ManiSkill environment. Importing this module imports ManiSkill."""

from typing import Any

import sapien
import torch
from mani_skill.agents.registration import register_agent
from mani_skill.agents.robots import Panda
from mani_skill.utils.building import actors
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs import Pose
from torch import Tensor

from bmd_pipeline.sim.maniskill import ShutControllerConfig, TabletopEnv, build_goal
from bmd_pipeline.tasks.reach import env as reach
from bmd_pipeline.tasks.reach.options import Options

ENV_ID = "ReachAroundPost-v1"
_DEFAULTS = Options()


@register_agent()
class PandaFist(Panda):  # type: ignore[misc]  # ManiSkill ships no types
    """A Panda that keeps its gripper shut: the action is the six components of the end effector's motion."""

    uid = "panda_fist"

    @property
    def _controller_configs(self) -> dict[str, Any]:
        shut = ShutControllerConfig(
            self.gripper_joint_names,
            lower=None,
            upper=None,
            stiffness=self.gripper_stiffness,
            damping=self.gripper_damping,
            force_limit=self.gripper_force_limit,
        )
        return {"pd_ee_delta_pose": {"arm": super()._controller_configs["pd_ee_delta_pose"]["arm"], "gripper": shut}}


@register_env(ENV_ID, max_episode_steps=100)
class ReachAroundPostEnv(TabletopEnv):
    """The fingertips must come to a goal behind a post, past either side of it; touching it fails."""

    SUPPORTED_ROBOTS = ["panda_fist"]
    RANDOM_DIM = reach.ReachTask.RANDOM_DIM
    _make_start = staticmethod(reach.make_start)

    def __init__(self, *args: Any, goal_radius: float = _DEFAULTS.goal_radius, **settings: Any) -> None:
        self._goal_radius = goal_radius
        super().__init__(*args, **settings)

    def _load_objects(self) -> None:
        (x, y), half_size = reach.POST, reach.POST_HALF_SIZE
        actors.build_box(
            self.scene,
            half_sizes=half_size,
            color=[0.5, 0.3, 0.2, 1.0],
            name="post",
            body_type="static",
            initial_pose=sapien.Pose(p=[x, y, half_size[2]]),
        )
        self.goal = build_goal(self.scene, "goal", self._goal_radius, reach.GOAL_MIDDLE)

    def _place_objects(self, placement: Tensor) -> None:
        self.goal.set_pose(Pose.create_from_pq(placement))

    def read_state(self) -> Tensor:
        robot = self.agent.robot
        return torch.cat((robot.get_qpos()[:, :7], self.agent.tcp.pose.raw_pose, self.goal.pose.p), 1)

    def evaluate(self) -> dict[str, Tensor]:
        state = self.read_state()
        distance = reach.compute_distance(state)
        return {"success": distance < self._goal_radius, "fail": reach.has_hit(state), "distance": distance}

    def compute_closeness(self) -> Tensor:
        """Share (num_envs,) of a typical way round the post that is done."""
        return torch.clamp(1.0 - reach.compute_path_length(self.read_state()), 0.0, 1.0)

    def _get_obs_extra(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"tip": self.agent.tcp.pose.raw_pose, "goal": self.goal.pose.p}
