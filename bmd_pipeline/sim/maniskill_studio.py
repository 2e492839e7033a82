"""Filming ManiSkill tasks: a scene with visuals and a camera, put into arrangements and photographed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import headless
from bmd_pipeline.sim.camera import Camera, Place
from bmd_pipeline.sim.filming import Arrangement, Frame
from bmd_pipeline.tasks.base import VectorTask

NO_RENDERER = (
    "no Vulkan device to render with: install Mesa's software renderer, lavapipe >= 24.3 "
    "(Debian 12: apt-get install -t bookworm-backports mesa-vulkan-drivers); "
    "a driver that lies elsewhere is found through VK_ICD_FILENAMES"
)


class ManiSkillStudio:
    """A ManiSkill scene that nothing steps.

    Args:
        env_id: ManiSkill's name of the environment, which must have been registered.
        camera: the camera.
        size: pixels of a picture's side.
        settings: arguments of the environment that decide how it looks.
    """

    def __init__(self, env_id: str, camera: Camera, size: int, settings: Mapping[str, Any]) -> None:
        self._size = size
        self._env: Any = headless.make_env(env_id, render_backend=_choose_backend(), **settings)
        look_at: Any = importlib.import_module("mani_skill.utils.sapien_utils").look_at
        pose = look_at(camera.eye, camera.target)
        self._camera = self._env.scene.add_camera(
            "film", pose=pose, width=size, height=size, fovy=camera.fov, near=0.01, far=50.0
        )

    def render(self, arrangement: Arrangement) -> Frame:
        """See `Studio.render`."""
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
class ManiSkillFilming:
    """See `Filming`.

    Attributes:
        env_module: module that registers the ManiSkill environment and names it `ENV_ID`.
        camera: the camera.
        locate_in: where in a task that is whose path tells modes apart.
        settings: arguments of the environment that decide how it looks.
        prepare: called before the environment is built.
    """

    env_module: str
    camera: Camera
    locate_in: Callable[[VectorTask], Place]
    settings: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None

    def require_renderer(self) -> None:
        """See `Filming.require_renderer`."""
        if not headless.have_render_device():
            raise TaskError(NO_RENDERER)

    def arrange(self, task: VectorTask) -> Arrangement:
        """ManiSkill's simulation state: pose and velocity of each actor, root and joints of each articulation."""
        env = task.simulation.scenes[0].env  # type: ignore[attr-defined]  # a `SimulatedTask` on the CPU
        return env.scene.get_sim_state()

    def locate(self, task: VectorTask) -> Place:
        """See `Filming.locate`."""
        return self.locate_in(task)

    def make_studio(self, size: int) -> ManiSkillStudio:
        """See `Filming.make_studio`."""
        env_id: str = importlib.import_module(self.env_module).ENV_ID
        self.prepare()
        return ManiSkillStudio(env_id, self.camera, size, self.settings)


def _choose_backend() -> str:
    """A CUDA device that can render, else what Vulkan finds."""
    sapien: Any = importlib.import_module("sapien")
    try:
        sapien.Device("cuda")
    except RuntimeError:
        return "sapien_cpu"
    return "sapien_cuda"
