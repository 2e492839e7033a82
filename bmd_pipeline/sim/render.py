"""Filming simulated episodes: cameras, recording, and pictures by ManiSkill or MuJoCo."""

from __future__ import annotations

import copy
import ctypes.util
import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import Expert, VectorTask
from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import backend

# ---- A camera: where it stands, and where in its picture a place is ----

Place = tuple[float, float, float]
"""(x, y, z) in metres."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that takes square pictures, upright: the world's z points up in them.

    Attributes:
        eye: where it stands; not straight above or below the target.
        target: what is in the middle of its pictures.
        fov: angle in rad that a picture covers, from edge to edge.
    """

    eye: Place
    target: Place
    fov: float = 0.9

    def project(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where places (n, 3) in metres are in the picture.

        Returns:
            (n, 2) shares of its width from the left and of its height from the top, outside of [0, 1] where the picture
            ends before; nothing is known of what hides them. Places must be before the camera.
        """
        forward = _unit(np.subtract(self.target, self.eye))
        right = _unit(np.cross(forward, (0.0, 0.0, 1.0)))
        down = np.cross(forward, right)
        offset = np.asarray(places, np.float64) - np.asarray(self.eye)
        depth = offset @ forward
        across = np.stack((offset @ right, offset @ down), 1) / depth[:, None]
        shares: NDArray[np.float64] = 0.5 + 0.5 * across / math.tan(self.fov / 2.0)
        return shares


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector))


# ---- How a task is filmed ----
#
# An episode is played as ever, without pictures, and what a picture shows of the scene is recorded after each control
# step; a second scene, which no physics moves, is put into these arrangements and rendered. So a film shows what the
# pipeline computes, on a machine that can't render too, and stepping knows nothing of cameras.

Arrangement = Any
"""What a picture shows of a scene: poses of its bodies, in the simulator's own form."""
Frame = NDArray[np.uint8]
"""A picture (size, size, 3), red, green and blue."""


class Renderer(Protocol):
    """A scene with a camera, which nothing steps."""

    def render(self, arrangement: Arrangement) -> Frame:
        """A picture of the scene in that arrangement."""
        ...

    def close(self) -> None:
        """Releases the renderer; calling it twice is harmless."""
        ...


class Filming(Protocol):
    """How a task's episodes are filmed: what its module `env` offers as `FILMING`."""

    @property
    def camera(self) -> Camera:
        """From where modes can be told apart."""
        ...

    def require_renderer(self) -> None:
        """Makes sure that this machine can render.

        Raises:
            TaskError: it can't; the message says what is missing and what to install.
        """
        ...

    def arrange(self, task: VectorTask) -> Arrangement:
        """How the scene of a task of one environment now is; what is returned doesn't change with it."""
        ...

    def locate(self, task: VectorTask) -> Place:
        """The place whose path tells modes apart."""
        ...

    def make_renderer(self, size: int) -> Renderer:
        """Builds a scene with a camera whose pictures are `size` pixels wide and high."""
        ...


@dataclass(frozen=True)
class SceneFilming:
    """Filming of a `SceneTask`; see `Filming`.

    Attributes:
        camera: the camera.
        locate_in: the place whose path tells modes apart, from a row of the task's state.
    """

    camera: Camera
    locate_in: Callable[[Sequence[float]], Sequence[float]]

    def locate(self, task: VectorTask) -> Place:
        """See `Filming.locate`."""
        x, y, z = self.locate_in(task.state[0].tolist())  # type: ignore[attr-defined]
        return x, y, z


# ---- Recording an episode as it is played, for a film of it ----


@dataclass
class Recording:
    """One episode of T control steps.

    Attributes:
        arrangements: T + 1 arrangements of the scene.
        places: T + 1 places whose path tells modes apart.
        tracks: T + 1 rows (track_dim,).
    """

    arrangements: list[Arrangement] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    tracks: list[Tensor] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Control steps."""
        return len(self.tracks) - 1

    @property
    def track(self) -> Tensor:
        """(T + 1, 1, track_dim), as labellings read it."""
        return torch.stack(self.tracks)[:, None]


class Recorder:
    """Records the episodes of a task from now on; those that it plays are the same as without.

    It listens to what the base class of all tasks calls when an episode begins and after each control step: neither
    tasks nor what plays them know of films, and no result depends on how films are made.

    Args:
        task: a task of one environment without automatic reset.
        filming: how it is filmed.

    Attributes:
        recording: the episode that is being played, or was played last.

    Raises:
        TaskError: it has several environments, or resets automatically.
    """

    def __init__(self, task: VectorTask, filming: Filming) -> None:
        if task.num_envs != 1 or task.auto_reset:
            raise TaskError(f"{task.spec.name}: one environment without automatic reset can be recorded")
        self._task = task
        self._filming = filming
        self._observe = task._observe
        self.recording = Recording()
        task._observe = self._record  # type: ignore[method-assign]

    def _record(self) -> Tensor:
        elapsed = int(self._task.elapsed[0])
        if elapsed == 0:
            self.recording = Recording()
        if elapsed == len(self.recording.tracks):  # not where an ended episode is frozen
            self.recording.arrangements.append(self._filming.arrange(self._task))
            self.recording.places.append(self._filming.locate(self._task))
            self.recording.tracks.append(self._task.track()[0].cpu())
        return self._observe()


def find_task(expert: Expert) -> VectorTask:
    """The task that a demonstrator plays in.

    Raises:
        TaskError: it holds none.
    """
    for value in vars(expert).values():
        if isinstance(value, VectorTask):
            return value
    raise TaskError(f"{type(expert).__name__} can't be filmed: it holds no task of its own")


# ---- Filming ManiSkill tasks ----

NO_VULKAN = (
    "no Vulkan device to render with: install Mesa's software renderer, lavapipe >= 24.3 "
    "(Debian 12: apt-get install -t bookworm-backports mesa-vulkan-drivers); "
    "a driver that lies elsewhere is found through VK_ICD_FILENAMES"
)


class ManiSkillRenderer:
    """See `Renderer`.

    Args:
        env_id: ManiSkill's name of the environment, which must have been registered.
        camera: the camera.
        size: pixels of a picture's side.
        settings: arguments of the environment that decide how it looks.
    """

    def __init__(self, env_id: str, camera: Camera, size: int, settings: Mapping[str, Any]) -> None:
        self._size = size
        sapien: Any = importlib.import_module("sapien")
        try:
            sapien.Device("cuda")
            where = "sapien_cuda"
        except RuntimeError:  # no CUDA device that can render: what Vulkan finds
            where = "sapien_cpu"
        self._env: Any = backend.make_env(env_id, render_backend=where, **settings)
        look_at: Any = importlib.import_module("mani_skill.utils.sapien_utils").look_at
        pose = look_at(camera.eye, camera.target)
        self._camera = self._env.scene.add_camera(
            "film", pose=pose, width=size, height=size, fovy=camera.fov, near=0.01, far=50.0
        )

    def render(self, arrangement: Arrangement) -> Frame:
        """See `Renderer.render`."""
        scene = self._env.scene
        scene.set_sim_state(arrangement)
        scene.update_render(update_sensors=False, update_human_render_cameras=False)
        self._camera.take_picture()
        colour = np.asarray(self._camera.get_picture("Color")[0].cpu()).reshape(self._size, self._size, -1)[..., :3]
        if colour.dtype == np.uint8:
            return np.array(colour)
        return (255.0 * colour.clip(0.0, 1.0)).round().astype(np.uint8)

    def close(self) -> None:
        """Releases the renderer."""
        self._env.close()


@dataclass(frozen=True)
class ManiSkillFilming(SceneFilming):
    """See `SceneFilming`.

    Attributes:
        env_module: module that registers the ManiSkill environment and names it `ENV_ID`.
        settings: arguments of the environment that decide how it looks.
        prepare: called before the environment is built.
    """

    env_module: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None

    def require_renderer(self) -> None:
        """See `Filming.require_renderer`."""
        if not backend.have_render_device():
            raise TaskError(NO_VULKAN)

    def arrange(self, task: VectorTask) -> Arrangement:
        """ManiSkill's simulation state: pose and velocity of each actor, root and joints of each articulation."""
        return task.simulation.scenes[0].env.scene.get_sim_state()  # type: ignore[attr-defined]

    def make_renderer(self, size: int) -> Renderer:
        """See `Filming.make_renderer`."""
        env_id: str = importlib.import_module(self.env_module).ENV_ID
        self.prepare()
        return ManiSkillRenderer(env_id, self.camera, size, self.settings)


# ---- Filming MuJoCo tasks, off screen ----

NO_OPENGL = (
    "no OpenGL to render with off screen: install Mesa's software renderer "
    "(Debian: apt-get install libegl1 libegl-mesa0, or libosmesa6)"
)
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


class MuJoCoRenderer:
    """See `Renderer`.

    Args:
        model: an `MjModel` of its own.
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
        x, y, z = np.subtract(camera.target, camera.eye).tolist()
        self._camera = self._mujoco.MjvCamera()
        self._camera.type = self._mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.lookat[:] = camera.target
        self._camera.distance = math.sqrt(x * x + y * y + z * z)
        self._camera.azimuth = math.degrees(math.atan2(y, x))
        self._camera.elevation = math.degrees(math.atan2(z, math.hypot(x, y)))

    def render(self, arrangement: Arrangement) -> Frame:
        """See `Renderer.render`."""
        self._data.qpos[:] = arrangement
        self._mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, self._camera)
        return np.array(self._renderer.render())

    def close(self) -> None:
        """Releases the renderer."""
        self._renderer.close()


@dataclass(frozen=True)
class MuJoCoFilming(SceneFilming):
    """See `SceneFilming`; scenes have MuJoCo's state as `data`.

    Attributes:
        load_model: the task's `MjModel`; the renderer takes a copy.
    """

    load_model: Callable[[], Any]

    def require_renderer(self) -> None:
        """See `Filming.require_renderer`."""
        choose_opengl()
        try:
            mujoco: Any = importlib.import_module("mujoco")  # reads MUJOCO_GL, and loads what it names
            mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
        except Exception as error:  # each OpenGL fails in its own way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TaskError(f"{NO_OPENGL}; MUJOCO_GL={os.environ.get('MUJOCO_GL')} failed: {reason}") from error

    def arrange(self, task: VectorTask) -> Arrangement:
        """Joint positions (nq,)."""
        return np.array(task.simulation.scenes[0].data.qpos)  # type: ignore[attr-defined]

    def make_renderer(self, size: int) -> Renderer:
        """See `Filming.make_renderer`."""
        return MuJoCoRenderer(copy.copy(self.load_model()), self.camera, size)


def choose_opengl() -> None:
    """Names an OpenGL that needs no display in MUJOCO_GL, unless it names one. MuJoCo reads it when it first renders.

    Raises:
        TaskError: there is none.
    """
    if os.environ.get("MUJOCO_GL"):
        return
    found = next((name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)), None)
    if found is None:
        raise TaskError(NO_OPENGL)
    os.environ["MUJOCO_GL"] = found
