"""One FrankaKitchen-v1 scene, stepped in MuJoCo directly. Building one imports MuJoCo.

FrankaKitchen's `step` without the noise that it adds to its observations and, through them, to the arm's commands; of
what `step` computes besides, nothing but the observation is left out.

Source: `FrankaRobot` and `KitchenEnv` of gymnasium-robotics 1.4.2.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from importlib.metadata import distribution
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.tasks.kitchen import layout

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
