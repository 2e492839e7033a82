"""PushT: the T and its goal, starts, scenes on CPU and GPU, observations, and the task as a batch of episodes."""

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.sim import backend
from bmd_pipeline.sim.arm import ArmScene, FreeBody, hold_tips, make_quaternion
from bmd_pipeline.sim.backend import BatchedScenes, SceneList, SceneTask, reset_physics
from bmd_pipeline.sim.render import Camera, ManiSkillFilming, Place
from bmd_pipeline.tasks.pusht.options import Options

# ---- The T and its goal ----
#
# A planar pose is (x, y, yaw) in metres and radians. The T's own frame has its origin in the centre of mass, the bar
# along x and the stem along +y. Its outline's corners are numbered counter-clockwise from the bar's lower left; face i
# runs from corner i to corner i + 1:
#
#             5---4
#             | 4 |          faces 1, 2, 3: the T's right (x > 0)
#           5 |   | 3        faces 5, 6, 7: the T's left (x < 0)
#        7----6   3----2
#      7 |   6     2   | 1   y
#        0-------------1     |
#               0            +-- x
#
# Source: the dimensions in ManiSkill's PushT-v1.

GOAL: NDArray[np.float64] = np.array([-0.156, -0.1, 5.0 / 3.0 * np.pi - 2.0 * np.pi])
"""Goal pose of the T (x, y, yaw)."""
TIP_HEIGHT = 0.014
"""Height in metres at which the tip is held: above the table, well below the T's upper face."""
START_HEIGHT = 0.021
"""Height in metres of the T's centre at the start: half its thickness and a millimetre to fall, as in ManiSkill."""
RADIAN_METRES = 0.075
"""Metres that one radian counts for in the distance of two poses: about the T's radius of gyration."""
MASS_CENTRE = 0.0375
"""Height in metres of the centre of mass over the middle of the bar."""
CORNERS: NDArray[np.float64] = np.array(
    [
        *([-0.1, -0.025], [0.1, -0.025], [0.1, 0.025], [0.025, 0.025]),
        *([0.025, 0.175], [-0.025, 0.175], [-0.025, 0.025], [-0.1, 0.025]),
    ]
) - [0.0, MASS_CENTRE]
TURNS: dict[str, int] = {"clockwise": -1, "counterclockwise": 1}
"""Sign of the T's rotation in each direction of turning."""
SIDE_FACES: dict[str, tuple[int, ...]] = {"left": (5, 6, 7), "right": (1, 2, 3)}
"""Faces that count as each side of the T."""
BEHAVIOURS: tuple[str, ...] = tuple(f"{turn}-{side}" for turn in TURNS for side in SIDE_FACES)
"""Ways of solving the task: direction of turning, and side of the T that is touched first."""

# ---- How PushT episodes start ----
#
# A start is a row of ten numbers: the arm's joint angles in rad, then the T's pose (x, y, yaw).

NUM_JOINTS = 7
RANDOM_DIM = NUM_JOINTS + 3
REST_QPOS: NDArray[np.float64] = np.array([0.662, 0.212, 0.086, -2.685, -0.115, 2.898, 1.673])
"""Joint angles in rad at which episodes start, but for noise; ManiSkill's own."""
_QPOS_NOISE = 0.02
_BOX_MIDDLE, _BOX_SIZE = np.array([0.0, 0.05]), np.array([0.2, 0.3])
"""ManiSkill's box of start positions, relative to the goal, in metres."""


def draw_random(generator: np.random.Generator) -> NDArray[np.float64]:
    """What a start is made of, (RANDOM_DIM,): standard normal for the joints, uniform in [-.5, .5) for the T."""
    return np.concatenate([generator.standard_normal(NUM_JOINTS), generator.uniform(-0.5, 0.5, 3)])


def make_start(random: Tensor, options: Options) -> Tensor:
    """Starts (n, NUM_JOINTS + 3) from what `draw_random` drew, (n, RANDOM_DIM)."""
    joints, spot, turn = torch.tensor_split(random, (NUM_JOINTS, NUM_JOINTS + 2), dim=1)
    qpos = random.new_tensor(REST_QPOS) + _QPOS_NOISE * joints
    position = random.new_tensor(GOAL[:2] + _BOX_MIDDLE) + options.position_box * random.new_tensor(_BOX_SIZE) * spot
    yaw = GOAL[2] + np.pi + 2.0 * np.deg2rad(options.yaw_range_deg) * turn
    return torch.cat((qpos, position, yaw), dim=1)


# ---- One PushT-v1 scene on the CPU, moved by planar actions ----

ENV_ID, CONTROL_MODE = "PushT-v1", "pd_ee_delta_pose"


class PushTScene(ArmScene):
    """A PushT-v1 scene."""

    def __init__(self, env_id: str = ENV_ID) -> None:
        skip_recolouring()
        super().__init__(env_id, control_mode=CONTROL_MODE)
        self._tee = FreeBody(self.env.tee)
        self._yaw = 0.0

    def place(self, start: Sequence[float]) -> None:
        reset_physics(self.env)
        x, y, yaw = (float(value) for value in start[NUM_JOINTS:])
        self._tee.place(x, y, START_HEIGHT, yaw)
        self.arm.place(np.array(start[:NUM_JOINTS]))
        self._yaw = yaw

    def move(self, action: Sequence[float]) -> None:
        x, y = action
        self.arm.step_planar(x, y, TIP_HEIGHT)

    def read(self) -> tuple[float, float, float, float, float, float]:
        """See `STATE_NAMES`."""
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


# ---- PushT-v1 in ManiSkill's GPU simulation: all scenes in one batch of tensors ----
#
# Not yet run on a GPU, for the reason that `BatchedScenes` gives; the code is exercised on the CPU, where ManiSkill
# offers the same batched interface for one environment. PushT-v1 is ManiSkill's own and no `StartedEnv`, so that
# its episodes are started here.
#
# Source: `BaseEnv.reset` and `BaseEnv.step` of ManiSkill 3.0.1.


class PushTBatch(BatchedScenes):
    """PushT-v1 scenes together."""

    def __init__(self, env_id: str, num_envs: int, device: torch.device) -> None:
        skip_recolouring()
        super().__init__(env_id, num_envs, device, control_mode=CONTROL_MODE)
        self._make_pose: Any = importlib.import_module("mani_skill.utils.structs").Pose.create_from_pq
        self._rotation_scale = float(self.env.agent.controller.controllers["arm"].config.rot_lower)
        self._yaw = torch.zeros(num_envs, device=device)

    def place(self, start: Tensor) -> Tensor:
        env, scene = self.env, self.env.scene
        qpos, pose = start[:, :NUM_JOINTS], start[:, NUM_JOINTS:]
        position = torch.cat((pose[:, :2], torch.full_like(pose[:, :1], START_HEIGHT)), 1)
        env.agent.reset(qpos)
        env.tee.set_pose(self._make_pose(position, make_quaternion(pose[:, 2])))
        env.tee.set_linear_velocity(torch.zeros_like(pose[0]))
        env.tee.set_angular_velocity(torch.zeros_like(pose[0]))
        if env.gpu_sim_enabled:
            scene._gpu_apply_all()
            scene.px.gpu_update_articulation_kinematics()
            scene._gpu_fetch_all()
        env.agent.controller.reset()
        self._yaw = pose[:, 2]
        return self._read()

    def _complete(self, action: Tensor) -> Tensor:
        return hold_tips(action, self.env.agent.tcp.pose.raw_pose, self._rotation_scale, TIP_HEIGHT)

    def _read(self) -> Tensor:
        tip, tee = self.env.agent.tcp.pose.raw_pose, self.env.tee.pose.raw_pose
        self._yaw = self._yaw + wrap(2.0 * torch.atan2(tee[:, 6], tee[:, 3]) - self._yaw)
        return torch.cat((tip[:, :3], tee[:, :2], self._yaw[:, None]), 1)


# ---- The state of PushT scenes as numbers, and what the policy sees of it ----
#
# The state of a scene is a row of `STATE_NAMES` in metres and radians; the T's yaw is unwrapped, so that the
# rotation since the start can be read off. Everything here is a pure function of tensors on any device.

STATE_NAMES = ("tip_x", "tip_y", "tip_z", "tee_x", "tee_y", "tee_yaw")
TRACK_NAMES = ("tip_x", "tip_y", "tee_x", "tee_y", "turn", "tee_yaw", "goal_distance")

_GOAL_X, _GOAL_Y, _GOAL_YAW = (float(value) for value in GOAL)
_TIP_METRES, _TEE_METRES = 0.15, 0.1  # divisors that bring features to order one
_TYPICAL_DISTANCE = 0.25  # metres between a start pose, half a turn off, and the goal


def wrap(angle: Tensor) -> Tensor:
    """Angles in rad brought to [-π, π)."""
    return torch.remainder(angle + math.pi, 2.0 * math.pi) - math.pi


OBS_NAMES = (
    *(f"tip {axis} from the goal ({_TIP_METRES} m)" for axis in "xy"),
    *(f"T {axis} from the goal ({_TEE_METRES} m)" for axis in "xy"),
    *("cosine of the T's yaw from the goal's", "sine of the T's yaw from the goal's"),
    *(f"tip {axis} in the T's frame ({_TEE_METRES} m)" for axis in "xy"),
)


def compute_obs(state: Tensor) -> Tensor:
    """What the policy sees of states (num_envs, 6): (num_envs, 8) of order one.

    Tip and T relative to the goal's position, cosine and sine of the T's yaw error, and the tip in the T's frame, where
    contacts look alike whatever the pose.
    """
    tip_x, tip_y, _, tee_x, tee_y, yaw = state.unbind(1)
    error, cos, sin = yaw - _GOAL_YAW, yaw.cos(), yaw.sin()
    x, y = tip_x - tee_x, tip_y - tee_y
    features = (
        (tip_x - _GOAL_X) / _TIP_METRES,
        (tip_y - _GOAL_Y) / _TIP_METRES,
        (tee_x - _GOAL_X) / _TEE_METRES,
        (tee_y - _GOAL_Y) / _TEE_METRES,
        error.cos(),
        error.sin(),
        (cos * x + sin * y) / _TEE_METRES,
        (cos * y - sin * x) / _TEE_METRES,
    )
    return torch.stack(features, 1)


def compute_distance(state: Tensor) -> Tensor:
    """The T's distance to the goal pose (num_envs,), in units of a typical start's distance."""
    turn = RADIAN_METRES * wrap(state[:, 5] - _GOAL_YAW)
    square = (state[:, 3] - _GOAL_X) ** 2 + (state[:, 4] - _GOAL_Y) ** 2 + turn**2
    return square.sqrt() / _TYPICAL_DISTANCE


# ---- ManiSkill's own success measure: the share of the goal that the T covers, for many poses at once ----
#
# The T's raster cells are moved into the goal's frame and counted there, on the same grid with the same
# rounding as `pseudo_render_intersection`; that function serves one environment, this one a batch of poses.
#
# Source: PushT-v1 of ManiSkill 3.0.1.


class GoalOverlap:
    """Covered share of the goal; takes raster, goal and transform from an unwrapped PushT-v1 environment."""

    def __init__(self, env: Any) -> None:
        drawn = env.tee_render == 1  # an image: rows are y, upside down
        self._cells = env.homo_uv[:, drawn]  # (3, num_cells) homogeneous coordinates of the T's cells, in metres
        self._goal: Tensor = drawn.flip(0).T.flatten()  # indexed (x, y)
        self._world_to_goal = env.world_to_goal_trans  # (3, 3) homogeneous
        self._resolution = drawn.shape[0]
        self._scale = (self._resolution / 2) / env.uv_half_width
        self._area: Tensor = self._goal.sum().float()

    def __call__(self, x: Tensor, y: Tensor, yaw: Tensor) -> Tensor:
        """Share (num_poses,) in [0, 1] of the goal covered by T's at x, y, yaw, each (num_poses,)."""
        cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
        rows = [torch.stack(row, -1) for row in ((cos, -sin, x), (sin, cos, y), (zero, zero, zero + 1.0))]
        to_goal = self._world_to_goal @ torch.stack(rows, 1)  # (num_poses, 3, 3)
        moved = to_goal[:, :2] @ self._cells  # (num_poses, 2, num_cells)
        index = (moved * self._scale + self._resolution / 2).long()  # truncates towards zero, as ManiSkill does
        outside = ((index < 0) | (index >= self._resolution)).any(1)
        flat = (index[:, 0] * self._resolution + index[:, 1]).masked_fill(outside, 0)  # there, as in ManiSkill
        covered = torch.zeros(len(yaw), self._goal.numel(), dtype=torch.bool, device=yaw.device)
        covered.scatter_(1, flat, True)
        return (covered & self._goal).sum(1) / self._area


# ---- The task, and how it is filmed ----


class PushTTask(SceneTask):
    """Pushing a T onto its goal, turned either way."""

    ENV_MODULE, SCENE, BATCH = __name__, PushTScene, PushTBatch
    NAME, TRACK_NAMES = "PushT", TRACK_NAMES
    PLANAR, PLANAR_UNITS = ("turn", "goal_distance"), ("rad", "m")
    OBS_NAMES = OBS_NAMES
    ACTION_DIM, STATE_DIM, RANDOM_DIM = 2, 6, RANDOM_DIM
    options: Options

    def __init__(self, options: Options, num_envs: int, first_row: int = 0, **settings: Any) -> None:
        super().__init__(options, num_envs, first_row, **settings)
        self._start_yaw = torch.zeros(num_envs, device=self.device)
        holder: Any = self.simulation.scenes[0] if isinstance(self.simulation, SceneList) else self.simulation
        self._overlap = GoalOverlap(holder.env)

    _draw_random = staticmethod(draw_random)

    def _make_start(self, random: Tensor) -> Tensor:
        return make_start(random, self.options)

    def _begin(self) -> None:
        self._start_yaw = self.state[:, 5]

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress and success, both by what the present turn is worth."""
        progress = compute_distance(before) - compute_distance(after)
        success = self._overlap(*after[:, 3:].unbind(1)) >= self.options.success_threshold
        reward = self.options.progress_scale * progress + self.options.success_bonus * success
        clockwise, counterclockwise = self.options.turn_weights
        return reward * torch.where(after[:, 5] >= self._start_yaw, counterclockwise, clockwise), success, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state)

    def track(self) -> Tensor:
        tip_x, tip_y, _, tee_x, tee_y, yaw = self.state.unbind(1)
        distance = torch.hypot(tee_x - _GOAL_X, tee_y - _GOAL_Y)
        return torch.stack((tip_x, tip_y, tee_x, tee_y, yaw - self._start_yaw, yaw, distance), 1)


def _locate_stem(state: Sequence[float]) -> Place:
    """The end of the T's stem, whose path turns with the T."""
    *_, x, y, yaw = state
    stem = float(CORNERS[:, 1].max())
    return x - stem * math.sin(yaw), y + stem * math.cos(yaw), 2.0 * START_HEIGHT


make_spec, make_env = PushTTask.make_spec, PushTTask.make_env
FILMING = ManiSkillFilming(  # from above the table's far edge, so that turns are seen as turns
    Camera((0.3, -0.06, 0.8), (-0.16, -0.06, 0.03), fov=0.75), _locate_stem, __name__, {"control_mode": CONTROL_MODE}
)
