"""PushT on the CPU: many scenes in one process, stepped directly."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.tasks.pusht.overlap import GoalOverlap
from bmd_pipeline.tasks.pusht.scene import Scene
from bmd_pipeline.tasks.pusht.task import PushTTask


class PushTScenes(PushTTask):
    """A batch of PushT scenes in this process; scenes whose episode ended cost nothing."""

    def _build(self) -> GoalOverlap:
        self.scenes = [Scene() for _ in range(self.num_envs)]
        return self.scenes[0].overlap()

    def _place(self, rows: NDArray[np.int64], qpos: NDArray[np.float64], tee: NDArray[np.float64]) -> Tensor:
        for i, row in enumerate(rows):
            self.scenes[row].place(qpos[i], tee[i])
        return torch.tensor([self.scenes[row].read() for row in rows], dtype=torch.float32)

    def _move(self, action: Tensor, active: Tensor) -> Tensor:
        state = self.state.clone()
        actions = action.tolist()
        for row in active.nonzero()[:, 0].tolist():
            scene = self.scenes[row]
            scene.move(*actions[row])
            state[row] = torch.tensor(scene.read())
        return state

    def close(self) -> None:
        """Releases the scenes."""
        self.scenes = []
