"""Kitchen: one FrankaKitchen-v1 scene stepped in MuJoCo, the task as a batch of episodes, and its environments."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from importlib.metadata import distribution
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.environments.workers import make_parallel
from bmd_pipeline.sim.backend import SceneList, SceneTask, Simulation
from bmd_pipeline.tasks.kitchen import layout
from bmd_pipeline.tasks.kitchen.options import Options

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
        *layout.REST_ARM,
        *(4.79267505e-02, 3.71350919e-02, -2.66279850e-04, -5.18043486e-05, 3.12877220e-05, -4.51199853e-05),
        *(-3.90842156e-06, -4.22629655e-05, 6.28065475e-05, 4.04984708e-05, 4.62730939e-04, -2.26906415e-04),
        *(-4.65501369e-04, -6.44129196e-03, -1.77048263e-03, 1.08009684e-03, *layout.REST_KETTLE),
        *(1.61944683e00, 1.00618764e00, 4.06395120e-03, -6.62095997e-03, -2.68278933e-04),
    ]
)


@functools.cache
def load_model() -> Any:
    """FrankaKitchen's `MjModel`; stepping leaves it as it is, so all scenes of a process share it."""
    mujoco: Any = importlib.import_module("mujoco")
    return mujoco.MjModel.from_xml_path(str(distribution("gymnasium-robotics").locate_file(_ASSET)))


class KitchenScene:
    """A kitchen of its own on the shared model.

    Attributes:
        data: MuJoCo's state of it.
    """

    def __init__(self) -> None:
        self._mujoco: Any = importlib.import_module("mujoco")
        self._model = load_model()
        self.data = self._mujoco.MjData(self._model)
        self._hand = self._model.site("end_effector").id
        self._sites = [self._hand, *(self._model.site(name).id for name in layout.HANDLES)]
        self._columns = [column for columns in layout.QPOS for column in columns]
        self.place([*layout.REST_ARM, *layout.REST_KETTLE])

    def place(self, start: Sequence[float]) -> None:
        """Starts afresh, at rest; see `layout` for the columns of start (9,)."""
        self._mujoco.mj_resetData(self._model, self.data)
        self.data.qpos[:] = _START_QPOS
        self.data.qpos[:7], self.data.qpos[23:25] = start[:7], start[7:]
        self._mujoco.mj_forward(self._model, self.data)

    def move(self, action: Sequence[float]) -> None:
        """One control step with an action (9,) in [-1, 1]: speeds of arm joints and fingers."""
        target = self.data.qpos[:9] + np.clip(action, -1.0, 1.0) * (MAX_SPEED * STEP_SECONDS)
        self.data.ctrl[:] = np.clip(target, _LOWEST, _HIGHEST)
        self._mujoco.mj_step(self._model, self.data, nstep=FRAME_SKIP)

    def read(self) -> Sequence[float]:
        """The state, see `layout`."""
        qpos = self.data.qpos
        sites: list[float] = self.data.site_xpos[self._sites].ravel().tolist()
        return (*qpos[:9].tolist(), *sites, *qpos[self._columns].tolist())

    def locate_hand(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The hand's orientation (3, 3) and its Jacobian (6, 7) by the arm's joints: translation, then rotation."""
        jacobian = np.zeros((6, self._model.nv))
        self._mujoco.mj_jacSite(self._model, self.data, jacobian[:3], jacobian[3:], self._hand)
        return self.data.site_xmat[self._hand].reshape(3, 3).copy(), jacobian[:, :7]

    def compute_sag(self) -> NDArray[np.float64]:
        """How far (7,) in rad the arm's joints would stay behind what they are commanded, for its weight."""
        sag: NDArray[np.float64] = self.data.qfrc_bias[:7] / self._model.actuator_gainprm[:7, 0]
        return sag


# ---- Kitchen as a batch of episodes ----


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Kitchen",
        obs_dim=layout.OBS_DIM,
        action_dim=9,
        track_names=layout.TRACK_NAMES,
        planar=("x", "z"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=1.0 / STEP_SECONDS,
    )


class KitchenTask(SceneTask):
    """Doing two of three things in the kitchen; each pays 1, and the second ends the episode.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SceneTask`.

    Attributes:
        best: (num_envs, 3) furthest progress of each thing in the episode; it stays done when it is undone.
    """

    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options
        self.best = torch.zeros(num_envs, len(layout.THINGS), device=self.device)

    def _make_simulation(self) -> Simulation:
        return SceneList([KitchenScene() for _ in range(self.num_envs)])

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _begin(self, rows: Tensor) -> None:
        self.best = torch.where(rows[:, None], layout.compute_progress(self.state), self.best)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays 1 for each thing the first time it is done."""
        done = (self.best > 1.0).sum(1)
        self.best = torch.maximum(self.best, layout.compute_progress(after))
        now_done = (self.best > 1.0).sum(1)
        success = now_done >= 2
        return (now_done - done).float(), success, success

    def _observe(self) -> Tensor:
        return layout.compute_obs(self.state, self.best > 1.0)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return layout.compute_track(self.state, self.best)


# ---- Kitchen environments; MuJoCo steps them on the CPU, wherever the policy is ----


def _make_scenes(num_envs: int, first_row: int, *, options: Options, auto_reset: bool) -> KitchenTask:
    return KitchenTask(options, num_envs, first_row=first_row, auto_reset=auto_reset)


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Kitchen environments.

    Args:
        options: the task's settings.
        num_envs: environments stepped together.
        device: where tensors live; scenes are stepped on the CPU all the same.
        num_workers: processes; one means this process. Results don't depend on it.
        auto_reset: start a new episode where one ended.
    """
    factory = functools.partial(_make_scenes, options=options, auto_reset=auto_reset)
    return make_parallel(factory, num_envs, num_workers, device)
