"""How a task is filmed: what its package's optional module `filming` offers as `FILMING`.

An episode is played as ever, without pictures, and what a picture shows of the scene is taken down after each control
step; a second scene, which no physics moves, is put into these arrangements and photographed. So a film shows what the
pipeline computes, on a machine that can't render too, and stepping knows nothing of cameras.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.sim.camera import Camera, Place
from bmd_pipeline.tasks.base import VectorTask

Arrangement = Any
"""What a picture shows of a scene: poses of its bodies, in the simulator's own form."""
Frame = NDArray[np.uint8]
"""A picture (size, size, 3), red, green and blue."""


class Studio(Protocol):
    """A scene with a camera."""

    def render(self, arrangement: Arrangement) -> Frame:
        """A picture of the scene in that arrangement."""
        ...

    def close(self) -> None:
        """Releases the renderer; calling it twice is harmless."""
        ...


class Filming(Protocol):
    """What is needed to film a task's episodes."""

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
        """Where that is whose path tells modes apart."""
        ...

    def make_studio(self, size: int) -> Studio:
        """Builds a scene with a camera whose pictures are `size` pixels wide and high."""
        ...
