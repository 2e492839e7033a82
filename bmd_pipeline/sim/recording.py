"""Taking down an episode as it is played, for a film of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.camera import Place
from bmd_pipeline.sim.filming import Arrangement, Filming
from bmd_pipeline.tasks.base import Expert, VectorTask


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
    """Takes down the episodes of a task from now on; those that it plays are the same as without.

    It listens from outside, at what the base class of all tasks calls when an episode begins and after each control
    step: neither tasks nor what plays them know of films, and no result depends on how films are made.

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
        task._observe = self._take_down  # type: ignore[method-assign]

    def _take_down(self) -> Tensor:
        if int(self._task.elapsed[0]) == 0:
            self.recording = Recording()
        if int(self._task.elapsed[0]) == len(self.recording.tracks):  # not where an ended episode is frozen
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
