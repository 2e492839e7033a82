"""Filming MuJoCo tasks: a model with a camera, put into joint positions and rendered off screen."""

from __future__ import annotations

import copy
import ctypes.util
import importlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.camera import Camera, Place
from bmd_pipeline.sim.filming import Arrangement, Frame
from bmd_pipeline.tasks.base import VectorTask

NO_RENDERER = (
    "no OpenGL to render with off screen: install Mesa's software renderer "
    "(Debian: apt-get install libegl1 libegl-mesa0, or libosmesa6)"
)
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


class MuJoCoStudio:
    """A model that nothing steps.

    Args:
        model: an `MjModel` of the studio's own.
        camera: the camera.
        size: pixels of a picture's side.
    """

    def __init__(self, model: Any, camera: Camera, size: int) -> None:
        self._mujoco: Any = importlib.import_module("mujoco")
        model.vis.global_.fovy = math.degrees(camera.fov)
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        self._model = model
        self._data = self._mujoco.MjData(model)
        self._renderer = self._mujoco.Renderer(model, size, size)
        self._renderer.scene.flags[self._mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # half the time, in software
        self._camera = self._place(camera)

    def render(self, arrangement: Arrangement) -> Frame:
        """See `Studio.render`."""
        self._data.qpos[:] = arrangement
        self._mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Releases the renderer."""
        self._renderer.close()

    def _place(self, camera: Camera) -> Any:
        x, y, z = np.subtract(camera.target, camera.eye).tolist()
        placed = self._mujoco.MjvCamera()
        placed.type = self._mujoco.mjtCamera.mjCAMERA_FREE
        placed.lookat[:] = camera.target
        placed.distance = math.sqrt(x * x + y * y + z * z)
        placed.azimuth = math.degrees(math.atan2(y, x))
        placed.elevation = math.degrees(math.atan2(z, math.hypot(x, y)))
        return placed


@dataclass(frozen=True)
class MuJoCoFilming:
    """See `Filming`.

    Attributes:
        load_model: the task's `MjModel`; the studio takes a copy.
        camera: the camera.
        find_data: the `MjData` of a task of one environment.
        locate_in: where in a task that is whose path tells modes apart.
    """

    load_model: Callable[[], Any]
    camera: Camera
    find_data: Callable[[VectorTask], Any]
    locate_in: Callable[[VectorTask], Place]

    def require_renderer(self) -> None:
        """See `Filming.require_renderer`."""
        choose_opengl()
        try:
            mujoco: Any = importlib.import_module("mujoco")  # reads MUJOCO_GL, and loads what it names
            mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
        except Exception as error:  # each OpenGL fails in its own way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TaskError(f"{NO_RENDERER}; MUJOCO_GL={os.environ.get('MUJOCO_GL')} failed: {reason}") from error

    def arrange(self, task: VectorTask) -> Arrangement:
        """Joint positions (nq,)."""
        return np.array(self.find_data(task).qpos)

    def locate(self, task: VectorTask) -> Place:
        """See `Filming.locate`."""
        return self.locate_in(task)

    def make_studio(self, size: int) -> MuJoCoStudio:
        """See `Filming.make_studio`."""
        return MuJoCoStudio(copy.copy(self.load_model()), self.camera, size)


def choose_opengl() -> None:
    """Names an OpenGL that needs no display in MUJOCO_GL, unless it names one. MuJoCo reads it when it first renders.

    Raises:
        TaskError: there is none.
    """
    if os.environ.get("MUJOCO_GL"):
        return
    found = next((name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)), None)
    if found is None:
        raise TaskError(NO_RENDERER)
    os.environ["MUJOCO_GL"] = found
