"""Filming episodes: cameras, recording, and pictures by ManiSkill or MuJoCo, or drawn where there is no simulator."""

import copy
import ctypes.util
import importlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

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
    """A pinhole camera that takes square pictures, upright: the world's z points up in them."""

    eye: Place  # where it stands; not straight above or below the target
    target: Place  # what is in the middle of its pictures
    fov: float = 0.9  # angle in rad that a picture covers, from edge to edge

    def project(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Where places (n, 3) in metres, all before the camera, are in the picture, whatever hides them.

        Returns (n, 2) shares of its width from the left and of its height from the top, beyond [0, 1] outside of it.
        """
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right = right / np.linalg.norm(right)
        offset = np.asarray(places, np.float64) - np.asarray(self.eye)
        across = np.stack((offset @ right, offset @ np.cross(forward, right)), 1) / (offset @ forward)[:, None]
        shares: NDArray[np.float64] = 0.5 + 0.5 * across / math.tan(self.fov / 2.0)
        return shares


def look_down(x: float, y: float, width: float) -> Camera:
    """A camera over the place (x, y) whose pictures are `width` metres wide, so far up that they are to scale."""
    height = 1e3 * width
    return Camera((x, y - 1e-6 * height, height), (x, y, 0.0), 2.0 * math.atan(0.5 * width / height))


# ---- How a task is filmed ----
#
# Episodes are played without rendering; after each control step the scene's arrangement is recorded. A second scene,
# which is never stepped, is then set to these arrangements and rendered. Filming therefore cannot change an episode.

Arrangement = Any
"""What a picture shows of a scene: poses of its bodies, in the simulator's own form."""
Frame = NDArray[np.uint8]
"""A picture (size, size, 3), red, green and blue."""


@dataclass(frozen=True)
class Renderer:
    """A scene with a camera, which nothing steps."""

    render: Callable[[Arrangement], Frame]  # takes a picture of the scene in an arrangement
    close: Callable[[], None]  # calling it twice is harmless


class Filming(Protocol):
    """How a task's episodes are filmed: what its module `env` offers as `FILMING`."""

    @property
    def camera(self) -> Camera:
        """From where modes can be told apart."""

    def require_renderer(self) -> None:
        """Makes sure that this machine can render; if not, a TaskError says what is missing and what to install."""

    def arrange(self, task: VectorTask) -> Arrangement:
        """How the scene of a task of one environment now is; what is returned doesn't change with it."""

    def locate(self, task: VectorTask) -> Place:
        """Position such as the tip's, whose path is drawn over the pictures."""

    def make_renderer(self, size: int) -> Renderer:
        """Builds a scene with a camera whose pictures are `size` pixels wide and high."""


@dataclass(frozen=True)
class SceneFilming:
    """Filming of a `SceneTask`; see `Filming`."""

    camera: Camera
    locate_in: Callable[[Sequence[float]], Sequence[float]]  # the place, from a row of the task's state

    def locate(self, task: VectorTask) -> Place:
        x, y, z = self.locate_in(task.state[0].tolist())  # type: ignore[attr-defined]
        return x, y, z


# ---- Recording an episode as it is played, for a clip of it ----


@dataclass
class Recording:
    """One episode of T control steps: T + 1 of each."""

    arrangements: list[Arrangement] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)  # see `Filming.locate`
    tracks: list[Tensor] = field(default_factory=list)  # rows (track_dim,)

    @property
    def length(self) -> int:
        return len(self.tracks) - 1

    @property
    def track(self) -> Tensor:
        """(T + 1, 1, track_dim), as labellings read it."""
        return torch.stack(self.tracks)[:, None]


class EpisodeRecorder:
    """Records the episodes of a task from now on; those that it plays are the same as without.

    It replaces the task's `_observe`, which `VectorTask` calls at each reset and after each control step, so tasks and
    players need no code for it. A task of several environments is a TaskError.

    Attributes:
        recording: the episode that is being played, or was played last.
    """

    def __init__(self, task: VectorTask, filming: Filming) -> None:
        if task.num_envs != 1:
            raise TaskError(f"{task.spec.name}: episodes of one environment can be recorded, not of {task.num_envs}")
        self._task, self._filming, self._observe = task, filming, task._observe
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
    """The task that an expert plays in; a TaskError if it holds none."""
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


@dataclass(frozen=True)
class ManiSkillFilming(SceneFilming):
    """Filming of a task on a ManiSkill environment; see `SceneFilming`."""

    env_module: str  # registers the environment and names it `ENV_ID`
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the environment, that decide how it looks

    def require_renderer(self) -> None:
        if not backend.have_render_device():
            raise TaskError(NO_VULKAN)

    def arrange(self, task: VectorTask) -> Arrangement:
        """ManiSkill's simulation state: pose and velocity of each actor, root and joints of each articulation."""
        return task.simulation.scenes[0].env.scene.get_sim_state()  # type: ignore[attr-defined]

    def make_renderer(self, size: int) -> Renderer:
        env_id: str = importlib.import_module(self.env_module).ENV_ID
        sapien: Any = importlib.import_module("sapien")
        try:
            sapien.Device("cuda")
            where = "sapien_cuda"
        except RuntimeError:  # no CUDA device that can render: what Vulkan finds
            where = "sapien_cpu"
        env: Any = backend.make_maniskill_env(env_id, render_backend=where, **self.settings)
        utils: Any = importlib.import_module("mani_skill.utils.sapien_utils")
        pose, fov = utils.look_at(self.camera.eye, self.camera.target), self.camera.fov
        camera = env.scene.add_camera("film", pose=pose, width=size, height=size, fovy=fov, near=0.01, far=50.0)

        def render(arrangement: Arrangement) -> Frame:
            env.scene.set_sim_state(arrangement)
            env.scene.update_render(update_sensors=False, update_human_render_cameras=False)
            camera.take_picture()
            colour = np.asarray(camera.get_picture("Color")[0].cpu()).reshape(size, size, -1)[..., :3]
            if colour.dtype == np.uint8:
                return np.array(colour)
            return (255.0 * colour.clip(0.0, 1.0)).round().astype(np.uint8)

        return Renderer(render, env.close)


# ---- Filming MuJoCo tasks, off screen ----

NO_OPENGL = (
    "no OpenGL to render with off screen: install Mesa's software renderer "
    "(Debian: apt-get install libegl1 libegl-mesa0, or libosmesa6)"
)
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


@dataclass(frozen=True)
class MuJoCoFilming(SceneFilming):
    """Filming of a task whose scenes have MuJoCo's state as `data`; see `SceneFilming`."""

    load_model: Callable[[], Any]  # the task's `MjModel`, of which renderers take a copy

    def require_renderer(self) -> None:
        choose_opengl()
        try:
            mujoco: Any = importlib.import_module("mujoco")  # reads MUJOCO_GL, and loads what it names
            # One that fails to start closes, at its end, what it does not have: a traceback from nowhere.
            mujoco.Renderer._gl_context = mujoco.Renderer._mjr_context = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about windows: the line below says it better
                mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
        except Exception as error:  # each OpenGL fails in its own way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise TaskError(f"{NO_OPENGL}; MUJOCO_GL={os.environ.get('MUJOCO_GL')} failed: {reason}") from error

    def arrange(self, task: VectorTask) -> Arrangement:
        """Joint positions (nq,)."""
        return np.array(task.simulation.scenes[0].data.qpos)  # type: ignore[attr-defined]

    def make_renderer(self, size: int) -> Renderer:
        mujoco: Any = importlib.import_module("mujoco")
        model = copy.copy(self.load_model())
        model.vis.global_.fovy = math.degrees(self.camera.fov)
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        data = mujoco.MjData(model)
        renderer = mujoco.Renderer(model, size, size)
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # half the time, in software
        x, y, z = np.subtract(self.camera.target, self.camera.eye).tolist()
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = self.camera.target
        camera.distance = math.sqrt(x * x + y * y + z * z)
        camera.azimuth = math.degrees(math.atan2(y, x))
        camera.elevation = math.degrees(math.atan2(z, math.hypot(x, y)))

        def render(arrangement: Arrangement) -> Frame:
            data.qpos[:] = arrangement
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera)
            return np.array(renderer.render())

        return Renderer(render, renderer.close)


def choose_opengl() -> None:
    """Names an OpenGL that needs no display in MUJOCO_GL, unless it names one; a TaskError if there is none.

    MuJoCo reads it when it first renders.
    """
    if os.environ.get("MUJOCO_GL"):
        return
    found = next((name for name, library in _LIBRARIES.items() if ctypes.util.find_library(library)), None)
    if found is None:
        raise TaskError(NO_OPENGL)
    os.environ["MUJOCO_GL"] = found


# ---- Drawing tasks of a point, which have no simulator ----

Point = tuple[float, float]
"""(x, y) in metres."""


class Disc(NamedTuple):
    """What is round in a drawing."""

    centre: Point
    radius: float
    colour: str


class Line(NamedTuple):
    """What is straight in a drawing."""

    start: Point
    end: Point
    colour: str


_PAPER, _BODY, _OVERSIZE, _LINE_SHARE = "#f7f5f0", "#1f6feb", 3, 0.008


@dataclass(frozen=True)
class DrawnFilming:
    """Filming of a `PointTask` as a drawing from above; see `Filming`."""

    camera: Camera
    radius: float  # of the point in the drawing, in metres
    lay_out: Callable[[Any], Sequence[Disc | Line]]  # what stands in the world of a task, in the order of drawing

    def require_renderer(self) -> None:
        """Drawing needs nothing."""

    def arrange(self, task: VectorTask) -> Arrangement:
        """What is to be drawn."""
        return (*self.lay_out(task), Disc(self.locate(task)[:2], self.radius, _BODY))

    def locate(self, task: VectorTask) -> Place:
        x, y = task.track()[0].tolist()
        return x, y, 0.0

    def make_renderer(self, size: int) -> Renderer:
        from PIL import Image, ImageDraw  # only clips need it

        large = _OVERSIZE * size  # and then made smaller, so that edges have no steps

        def place(*points: Point) -> NDArray[np.float64]:
            return large * self.camera.project(np.array([(x, y, 0.0) for x, y in points]))

        def render(arrangement: Arrangement) -> Frame:
            picture = Image.new("RGB", (large, large), _PAPER)
            draw = ImageDraw.Draw(picture)
            for shape in arrangement:
                if isinstance(shape, Line):
                    ends = place(shape.start, shape.end).flatten().tolist()
                    draw.line(ends, fill=shape.colour, width=max(1, round(_LINE_SHARE * large)))
                    continue
                (x, y), r = shape.centre, shape.radius
                draw.ellipse(place((x - r, y + r), (x + r, y - r)).flatten().tolist(), fill=shape.colour)
            return np.array(picture.reduce(_OVERSIZE))

        return Renderer(render, lambda: None)
