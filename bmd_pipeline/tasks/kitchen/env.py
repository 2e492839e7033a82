"""Kitchen: what a state of it means, one FrankaKitchen-v1 scene stepped in MuJoCo, the task as a batch of episodes."""

import functools
import importlib
import itertools
from collections.abc import Sequence
from importlib.metadata import distribution
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.sim.backend import SceneTask
from bmd_pipeline.sim.render import Camera, MuJoCoFilming
from bmd_pipeline.tasks.kitchen.options import Options

# ---- What can be done, what a state means, and when a thing is done ----
#
# Starts are rows of arm joint angles (7) and the kettle's place (x, y); states are rows of joint angles (arm 7, fingers
# 2), the hand (3), the handle of each thing (3 x 3), and the joints that say how far each thing is (10). Everything is
# a function of tensors on any device.

THINGS = ("kettle", "light", "slide")
"""What can be done: push the kettle to the burner behind it, turn the light on, slide the cabinet's door open."""
ORDERS = tuple("-".join(pair) for pair in itertools.permutations(THINGS, 2))
"""Two things are to be done in an episode; the first two, in the order in which they were done."""

HANDLES = ("kettle_site", "light_site", "slide_site")
"""MuJoCo's sites at what the hand goes for, one of each thing."""
QPOS = ((23, 24, 25, 26, 27, 28, 29), (17, 18), (19,))
"""Columns of FrankaKitchen's joint positions that belong to each thing."""
GOALS = ((-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06), (-0.69, -0.05), (0.37,))
"""Values of these where FrankaKitchen wants them."""
DONE_WITHIN = 0.3
"""FrankaKitchen's bound on the distance between joints and goal below which a thing is done."""

REST_ARM = (0.148388023, -1.76848573, 1.84390296, -2.47685760, 0.260252026, 0.712533105, 1.59515394)
REST_KETTLE = (-0.26939744, 0.350383255)
"""FrankaKitchen's start of the arm, in rad, and of the kettle (x, y), in metres."""
_ARM_SPREAD, _KETTLE_SPREAD = 0.03, 0.01

TRACK_NAMES = (*THINGS, "x", "z")

_WIDTHS = [7, 2, 3, 9, 10]  # of a state's parts
_CENTRE = (-0.4, 0.4, 2.1)  # of where the hand goes, in metres
_START_DISTANCES = (0.4064, 0.6917, 0.3705)  # of the things' joints from their goals when episodes begin


def make_start(random: Tensor) -> Tensor:
    """Starts (n, 9) from uniform numbers (n, 9)."""
    spread = random.new_tensor((_ARM_SPREAD,) * 7 + (_KETTLE_SPREAD,) * 2)
    return random.new_tensor(REST_ARM + REST_KETTLE) + spread * (2.0 * random - 1.0)


def locate_handle(state: Tensor, thing: str) -> Tensor:
    """Where the handle (num_envs, 3) of a thing is, in metres."""
    index = 12 + 3 * THINGS.index(thing)
    return state[:, index : index + 3]


def compute_progress(state: Tensor) -> Tensor:
    """How far each thing is (num_envs, len(THINGS)): about 0 at first, above 1 when it is done."""
    *_, joints = torch.split(state, _WIDTHS, dim=1)
    things = torch.split(joints, [len(columns) for columns in QPOS], dim=1)
    distance = torch.stack(
        [(values - state.new_tensor(goal)).norm(dim=1) for values, goal in zip(things, GOALS, strict=True)], 1
    )
    start = state.new_tensor(_START_DISTANCES)
    return (start - distance) / (start - DONE_WITHIN)


OBS_NAMES = (
    *(f"joint {joint} from rest (rad)" for joint in range(1, 8)),
    *(f"finger {finger} (0.04 m)" for finger in (1, 2)),
    *(f"hand {axis} from its usual place (0.3 m)" for axis in "xyz"),
    *(f"handle of the {thing}, {axis} from the hand (0.3 m)" for thing in THINGS for axis in "xyz"),
    *(f"progress of the {thing} (of all that is to do)" for thing in THINGS),
    *(f"whether the {thing} is done" for thing in THINGS),
)


def compute_obs(state: Tensor, done: Tensor) -> Tensor:
    """What the policy sees of states (num_envs, 31) and of which things are done (num_envs, 3), bool.

    It is (num_envs, 27) of order one: arm joints from their rest, fingers, hand, handles from the hand, progress of the
    things, and which of them are done.
    """
    arm, fingers, hand, handles, _ = torch.split(state, _WIDTHS, dim=1)
    handles = (handles.reshape(len(state), -1, 3) - hand[:, None]).flatten(1)  # (num_envs, 9)
    posture, place = arm - state.new_tensor(REST_ARM), (hand - state.new_tensor(_CENTRE)) / 0.3
    return torch.cat((posture, fingers / 0.04, place, handles / 0.3, compute_progress(state), done.float()), 1)


def compute_track(state: Tensor, best: Tensor) -> Tensor:
    """The episode's low-dimensional view (num_envs, len(TRACK_NAMES)): furthest progress so far, and the hand."""
    return torch.cat((best, state[:, 9:10], state[:, 11:12]), 1)


# ---- One FrankaKitchen-v1 scene, stepped in MuJoCo directly. Building one imports MuJoCo ----
#
# FrankaKitchen's `step` without the noise that it adds to its observations and, through them, to the arm's commands;
# of what `step` computes besides, nothing but the observation is left out.
#
# Source: `FrankaRobot` and `KitchenEnv` of gymnasium-robotics 1.4.2.

FRAME_SKIP = 40
STEP_SECONDS = FRAME_SKIP * 0.002
MAX_SPEED = 2.0
"""Joint speed in rad/s (fingers: m/s) that an action of 1 commands."""
_ASSET = "gymnasium_robotics/envs/assets/kitchen_franka/kitchen_assets/kitchen_env_model.xml"
_LOWEST = np.array([-2.9, -1.8, -2.9, -3.1, -2.9, 0.0, -2.9, 0.0, 0.0])
_HIGHEST = np.array([2.9, 1.8, 2.9, 0.0, 2.9, 3.8, 2.9, 0.04, 0.04])  # of what the arm is commanded
_START_QPOS = np.array(
    [
        *REST_ARM,
        *(4.79267505e-02, 3.71350919e-02, -2.66279850e-04, -5.18043486e-05, 3.12877220e-05, -4.51199853e-05),
        *(-3.90842156e-06, -4.22629655e-05, 6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04),
        *(-4.65501369e-04, -6.44129196e-03, -1.77048263e-03, 1.08009684e-03, *REST_KETTLE),
        *(1.61944683e00, 1.00618764e00, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)


@functools.cache
def load_model() -> Any:
    """FrankaKitchen's `MjModel`; stepping leaves it as it is, so all scenes of a process share it."""
    mujoco: Any = importlib.import_module("mujoco")
    return mujoco.MjModel.from_xml_path(str(distribution("gymnasium-robotics").locate_file(_ASSET)))


class KitchenScene:
    """A kitchen of its own on the shared model; `data` is MuJoCo's state of it."""

    def __init__(self) -> None:
        self._mujoco: Any = importlib.import_module("mujoco")
        self._model = load_model()
        self.data = self._mujoco.MjData(self._model)
        self._hand = self._model.site("end_effector").id
        self._sites = [self._hand, *(self._model.site(name).id for name in HANDLES)]
        self._columns = [column for columns in QPOS for column in columns]
        self.place([*REST_ARM, *REST_KETTLE])

    def place(self, start: Sequence[float]) -> None:
        self._mujoco.mj_resetData(self._model, self.data)
        self.data.qpos[:] = _START_QPOS
        self.data.qpos[:7], self.data.qpos[23:25] = start[:7], start[7:]
        self._mujoco.mj_forward(self._model, self.data)

    def move(self, action: Sequence[float]) -> None:
        """See `Scene.move`; an action is speeds of arm joints and fingers."""
        target = self.data.qpos[:9] + np.clip(action, -1.0, 1.0) * (MAX_SPEED * STEP_SECONDS)
        self.data.ctrl[:] = np.clip(target, _LOWEST, _HIGHEST)
        self._mujoco.mj_step(self._model, self.data, nstep=FRAME_SKIP)

    def read(self) -> Sequence[float]:
        qpos = self.data.qpos
        sites = self.data.site_xpos[self._sites].ravel()
        return (*qpos[:9].tolist(), *sites.tolist(), *qpos[self._columns].tolist())

    def compute_hand_kinematics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The hand's orientation (3, 3) and its Jacobian (6, 7) by the arm's joints: translation, then rotation."""
        jacobian = np.zeros((6, self._model.nv))
        self._mujoco.mj_jacSite(self._model, self.data, jacobian[:3], jacobian[3:], self._hand)
        return self.data.site_xmat[self._hand].reshape(3, 3).copy(), jacobian[:, :7]

    def compute_sag(self) -> NDArray[np.float64]:
        """How far (7,) in rad the arm's joints lag behind their command, for its weight and its motion's forces."""
        sag: NDArray[np.float64] = self.data.qfrc_bias[:7] / self._model.actuator_gainprm[:7, 0]
        return sag


# ---- The task, and how it is filmed ----


class KitchenTask(SceneTask):
    """Doing two of three things in the kitchen; each pays 1, and the second ends the episode.

    Attributes:
        best: (num_envs, 3) highest progress of each thing so far in the episode; a thing counts as done even if it is
            undone later.
    """

    SCENE = KitchenScene
    NAME, TRACK_NAMES, PLANAR = "Kitchen", TRACK_NAMES, ("x", "z")
    OBS_NAMES = OBS_NAMES
    ACTION_DIM, STATE_DIM, RANDOM_DIM = 9, 31, 9
    CONTROL_HZ = 1.0 / STEP_SECONDS
    options: Options

    def __init__(self, options: Options, num_envs: int, first_row: int = 0, **settings: Any) -> None:
        super().__init__(options, num_envs, first_row, **settings)
        self.best = torch.zeros(num_envs, len(THINGS), device=self.device)

    _make_start = staticmethod(make_start)

    def _begin(self) -> None:
        self.best = compute_progress(self.state)

    def _evaluate(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays 1 for each thing the first time it is done."""
        done = (self.best > 1.0).sum(1)
        self.best = torch.maximum(self.best, compute_progress(after))
        now_done = (self.best > 1.0).sum(1)
        success = now_done >= 2
        return (now_done - done).float(), success, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state, self.best > 1.0)

    def track(self) -> Tensor:
        return compute_track(self.state, self.best)


make_spec, make_env = KitchenTask.make_spec, KitchenTask.make_env
FILMING = MuJoCoFilming(  # from the left, where the arm hides neither kettle nor light switch nor cabinet
    Camera((-1.0, -1.0, 2.75), (-0.12, 0.5, 2.05), fov=0.85), lambda state: state[9:12], load_model
)
