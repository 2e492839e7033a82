"""ANYmal C's description, made fit for simulation, and AnymalBeacons-v1, a registered ManiSkill environment.

Importing this module imports ManiSkill.
"""

from __future__ import annotations

import copy
import functools
import tempfile
import warnings
import xml.etree.ElementTree as ET
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.agents.registration import register_agent
from mani_skill.agents.robots.anymal.anymal_c import ANYmalC
from mani_skill.utils.building.ground import build_ground
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs import Pose
from mani_skill.utils.structs.types import GPUMemoryConfig, SceneConfig, SimConfig
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from bmd_pipeline.sim.maniskill import StartedEnv, build_goal
from bmd_pipeline.tasks.anymal import env as anymal
from bmd_pipeline.tasks.anymal.options import Options

# ---- A description of ANYmal C that is fit for simulation, from the one that its maker publishes ----
#
# Most of the published links are parts bolted to another: shells, cameras, motors, frames without mass. Some inertias
# are not those of any body, which SAPIEN refuses, and the base has collision shapes but no inertial, for which SAPIEN
# would make up a mass beside that of the parts. Here parts are lumped into what carries them: masses and inertias come
# out right, and few links remain. Visuals are the collision shapes, so that there are no meshes to load.

_URDF = "cmeel.prefix/share/example-robot-data/robots/anymal_c_simple_description/urdf/anymal.urdf"
FEET = ("LF_FOOT", "RF_FOOT", "LH_FOOT", "RH_FOOT")
"""Links that stay links though they are fixed to the shank: they have a friction of their own."""
_AXES = "xyz"


def find_urdf() -> Path:
    """The description of ANYmal C in the wheel `example-robot-data` (Copyright ANYbotics, BSD-3-Clause)."""
    return Path(str(distribution("example-robot-data").locate_file(_URDF)))


@functools.cache
def write_urdf() -> tuple[str, tempfile.TemporaryDirectory[str]]:
    """Path of the lumped description, and the folder that lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="bmd-anymal-")
    path = Path(folder.name) / "anymal_c.urdf"
    path.write_text(lump_fixed_links(find_urdf().read_text()))
    return str(path), folder


def lump_fixed_links(description: str) -> str:
    """Lumps links that are fixed to another link into that one, but for `FEET`.

    Takes and returns URDF text; moving parts, masses, inertias and collision shapes are the same.
    """
    robot = ET.fromstring(description)
    bodies = {str(link.get("name")): _Body(link) for link in robot.findall("link")}
    lumped = ET.Element("robot", robot.attrib)
    carrier = {name: (name, np.eye(4)) for name in bodies}  # which remaining link carries it, and where
    joints: list[Any] = []
    for joint in _sort_from_root(robot.findall("joint")):
        child = joint.find("child").get("link")
        parent, place = carrier[joint.find("parent").get("link")]
        place = place @ _read_pose(joint.find("origin"))
        if joint.get("type") == "fixed" and child not in FEET:
            carrier[child] = parent, place
            bodies[parent].absorb(bodies.pop(child), place)
            continue
        joint.find("parent").set("link", parent)
        _write_pose(joint, place)
        joints.append(joint)
    lumped.extend([body.describe(name) for name, body in bodies.items()])
    lumped.extend(joints)
    return ET.tostring(lumped, encoding="unicode")


class _Body:
    """Pseudo-inertia and shapes of a link, in its frame.

    The pseudo-inertia (4, 4) is the integral of [x, y, z, 1] times itself over the mass: [[second moments,
    mass × middle], [·, mass]], kg and m. It adds up, and moves like a pose. About the middle, second moments S and
    inertia I are tr(S) 1 - I and tr(S) 1 - S, where tr(S) is half of tr(I).
    """

    def __init__(self, link: Any) -> None:
        self.pseudo_inertia = np.zeros((4, 4))
        self.shapes = [copy.deepcopy(shape) for shape in link.findall("collision")]
        inertial = link.find("inertial")
        if inertial is not None:
            values = {key: float(value) for key, value in inertial.find("inertia").attrib.items()}
            inertia = np.array([[values["i" + min(a, b) + max(a, b)] for b in _AXES] for a in _AXES])
            self.pseudo_inertia[:3, :3] = np.trace(inertia) / 2.0 * np.eye(3) - inertia
            self.pseudo_inertia[3, 3] = float(inertial.find("mass").get("value"))
            pose = _read_pose(inertial.find("origin"))
            self.pseudo_inertia = pose @ self.pseudo_inertia @ pose.T

    def absorb(self, part: _Body, place: NDArray[np.float64]) -> None:
        """Adds what is fixed to this body at place (4, 4)."""
        self.pseudo_inertia = self.pseudo_inertia + place @ part.pseudo_inertia @ place.T
        for shape in part.shapes:
            _write_pose(shape, place @ _read_pose(shape.find("origin")))
            self.shapes.append(shape)

    def describe(self, name: str) -> ET.Element:
        """The link of that name."""
        mass = self.pseudo_inertia[3, 3]
        middle = self.pseudo_inertia[:3, 3] / mass
        spread = self.pseudo_inertia[:3, :3] - mass * np.outer(middle, middle)  # second moments about the middle
        inertia = np.trace(spread) * np.eye(3) - spread
        link = ET.Element("link", name=name)
        inertial = ET.SubElement(link, "inertial")
        ET.SubElement(inertial, "origin", xyz=_format(middle), rpy="0 0 0")
        ET.SubElement(inertial, "mass", value=_format([mass]))
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        ET.SubElement(inertial, "inertia", {f"i{_AXES[i]}{_AXES[j]}": _format([inertia[i, j]]) for i, j in pairs})
        for shape in self.shapes:
            visual = copy.deepcopy(shape)
            visual.tag = "visual"
            link.extend((visual, shape))
        return link


def _sort_from_root(joints: list[Any]) -> list[Any]:
    """Joints in an order in which the parent's comes before the child's."""
    parents = {joint.find("child").get("link"): joint.find("parent").get("link") for joint in joints}

    def count_ancestors(link: str) -> int:
        return 1 + count_ancestors(parents[link]) if link in parents else 0

    return sorted(joints, key=lambda joint: count_ancestors(joint.find("child").get("link")))


def _read_pose(origin: ET.Element | None) -> NDArray[np.float64]:
    """Transformation (4, 4) of an `origin` element; rpy are turns about the fixed axes x, y, z."""
    pose = np.eye(4)
    if origin is not None:
        pose[:3, 3] = [float(value) for value in origin.get("xyz", "0 0 0").split()]
        pose[:3, :3] = Rotation.from_euler("xyz", [float(v) for v in origin.get("rpy", "0 0 0").split()]).as_matrix()
    return pose


def _write_pose(element: ET.Element, pose: NDArray[np.float64]) -> None:
    for origin in element.findall("origin"):
        element.remove(origin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at a pitch of 90 degrees, any of the equivalent angles will do
        turns = Rotation.from_matrix(pose[:3, :3]).as_euler("xyz")
    ET.SubElement(element, "origin", xyz=_format(pose[:3, 3]), rpy=_format(turns))


def _format(values: NDArray[np.float64] | list[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


# ---- The robot and its environment ----

ENV_ID = "AnymalBeacons-v1"
_DEFAULTS = Options()


@register_agent()
class LumpedAnymalC(ANYmalC):  # type: ignore[misc]  # ManiSkill ships no types
    """ManiSkill's ANYmal C, described by a Python wheel instead of a download."""

    uid = "anymal_c_lumped"

    @property
    def urdf_path(self) -> str:
        return write_urdf()[0]


@register_env(ENV_ID, max_episode_steps=200)
class AnymalBeaconsEnv(StartedEnv):
    """The base must come to one of four beacons around the start; falling fails."""

    SUPPORTED_ROBOTS = ["anymal_c_lumped"]
    CONTROL_MODE = "pd_joint_delta_pos"
    RANDOM_DIM = anymal.AnymalTask.RANDOM_DIM
    _make_start = staticmethod(anymal.make_start)

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
            build_goal(self.scene, f"beacon_{direction}", 0.05, [*place, 0.05])
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
        robot = self.agent.robot
        parts = (
            robot.get_qpos(),
            robot.get_qvel(),
            robot.pose.raw_pose,
            robot.root_linear_velocity,
            robot.root_angular_velocity,
            self._distance[:, None],
        )
        return torch.cat(parts, 1)

    def evaluate(self) -> dict[str, Tensor]:
        state = self.read_state()
        distance = anymal.compute_distances(state).min(dim=1).values
        fallen = anymal.has_fallen(state)
        return {"success": (distance < self._goal_radius) & ~fallen, "fail": fallen, "distance": distance}

    def compute_closeness(self) -> Tensor:
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
