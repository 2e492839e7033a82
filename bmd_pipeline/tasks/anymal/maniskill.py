"""AnymalBeacons-v1, a registered ManiSkill environment. Importing this module imports ManiSkill."""

from __future__ import annotations

from typing import Any

import sapien
import torch
from mani_skill.agents.registration import register_agent
from mani_skill.agents.robots.anymal.anymal_c import ANYmalC
from mani_skill.utils.building import actors
from mani_skill.utils.building.ground import build_ground
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs import Pose
from mani_skill.utils.structs.types import GPUMemoryConfig, SceneConfig, SimConfig
from torch import Tensor

from bmd_pipeline.sim.maniskill import StartedEnv
from bmd_pipeline.tasks.anymal import env as anymal
from bmd_pipeline.tasks.anymal.model import write_urdf
from bmd_pipeline.tasks.anymal.options import Options

ENV_ID = "AnymalBeacons-v1"
_DEFAULTS = Options()


@register_agent()
class LumpedAnymalC(ANYmalC):  # type: ignore[misc]  # ManiSkill ships no types
    """ManiSkill's ANYmal C, described by a Python wheel instead of a download."""

    uid = "anymal_c_lumped"

    @property
    def urdf_path(self) -> str:
        """File of the description."""
        return write_urdf()


@register_env(ENV_ID, max_episode_steps=200)
class AnymalBeaconsEnv(StartedEnv):
    """The base must come to one of four beacons around the start; falling fails."""

    SUPPORTED_ROBOTS = ["anymal_c_lumped"]
    CONTROL_MODE = "pd_joint_delta_pos"
    RANDOM_DIM = anymal.AnymalTask.RANDOM_DIM
    _make_start = staticmethod(anymal.make_start)
    agent: LumpedAnymalC

    def __init__(self, *args: Any, goal_radius: float = _DEFAULTS.goal_radius, **settings: Any) -> None:
        self._goal_radius = goal_radius
        super().__init__(*args, **settings)

    @property
    def _default_sim_config(self) -> SimConfig:
        # ManiSkill's own settings for this robot
        return SimConfig(
            gpu_memory_config=GPUMemoryConfig(max_rigid_contact_count=2**20),
            scene_config=SceneConfig(solver_position_iterations=4, solver_velocity_iterations=0),
        )

    def _load_agent(self, options: dict[str, Any]) -> None:
        super()._load_agent(options, sapien.Pose(p=[0.0, 0.0, anymal.REST_HEIGHT]))

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.ground = build_ground(self.scene, floor_width=20)
        self.beacons = [
            actors.build_sphere(
                self.scene,
                radius=0.05,
                color=[0.0, 1.0, 0.0, 1.0],
                name=f"beacon_{direction}",
                body_type="kinematic",
                add_collision=False,
                initial_pose=sapien.Pose(p=[*place, 0.05]),
            )
            for direction, place in zip(anymal.DIRECTIONS, anymal.place_beacons(torch.ones(1))[0].tolist(), strict=True)
        ]
        self._distance = torch.full((self.num_envs,), anymal.BEACON_DISTANCE, device=self.device)

    def _place(self, env_idx: Tensor, start: Tensor) -> None:
        robot = self.agent.robot
        self.agent.reset(start[:, : anymal.NUM_JOINTS])
        robot.set_pose(Pose.create_from_pq(*anymal.make_base_pose(start[:, 12])))
        robot.set_root_linear_velocity(torch.zeros(len(env_idx), 3))
        robot.set_root_angular_velocity(torch.zeros(len(env_idx), 3))
        self._distance[env_idx] = start[:, 13]
        places = anymal.place_beacons(start[:, 13])
        for beacon, place in zip(self.beacons, places.unbind(1), strict=True):
            beacon.set_pose(Pose.create_from_pq(torch.cat((place, torch.full_like(place[:, :1], 0.05)), 1)))

    def read_state(self) -> Tensor:
        """(num_envs, 38), see `anymal.env`."""
        robot = self.agent.robot
        return torch.cat(
            (
                robot.get_qpos(),
                robot.get_qvel(),
                robot.pose.raw_pose,
                robot.root_linear_velocity,
                robot.root_angular_velocity,
                self._distance[:, None],
            ),
            1,
        )

    def evaluate(self) -> dict[str, Tensor]:
        """Success near a beacon, failure by falling."""
        state = self.read_state()
        distance = anymal.compute_distances(state).min(dim=1).values
        fallen = anymal.has_fallen(state)
        return {"success": (distance < self._goal_radius) & ~fallen, "fail": fallen, "distance": distance}

    def compute_closeness(self) -> Tensor:
        """Share (num_envs,) of the way to the nearest beacon that is done."""
        return anymal.compute_closeness(self.read_state()).clamp(0.0, 1.0)

    def _get_obs_extra(self, info: dict[str, Tensor]) -> dict[str, Tensor]:
        robot = self.agent.robot
        return {
            "base": robot.pose.raw_pose,
            "linear_velocity": robot.root_linear_velocity,
            "angular_velocity": robot.root_angular_velocity,
            "beacon_distance": self._distance,
            "steps": self.elapsed_steps,
        }
