"""Kitchen as a batch of episodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SceneList, SceneTask, Simulation
from bmd_pipeline.tasks.kitchen import layout
from bmd_pipeline.tasks.kitchen.options import Options
from bmd_pipeline.tasks.kitchen.scene import STEP_SECONDS, KitchenScene


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
