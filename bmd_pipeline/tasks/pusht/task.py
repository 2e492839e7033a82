"""PushT as a batch of episodes, whatever simulates it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SceneList, SimulatedTask, Simulation
from bmd_pipeline.tasks.pusht import start
from bmd_pipeline.tasks.pusht.gpu import PushTBatch
from bmd_pipeline.tasks.pusht.options import Options
from bmd_pipeline.tasks.pusht.overlap import GoalOverlap
from bmd_pipeline.tasks.pusht.scene import PushTScene
from bmd_pipeline.tasks.pusht.state import (
    OBS_DIM,
    STATE_DIM,
    TRACK_NAMES,
    compute_closeness,
    compute_obs,
    compute_track,
)

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="PushT",
        obs_dim=OBS_DIM,
        action_dim=2,
        track_names=TRACK_NAMES,
        planar=("turn", "goal_distance"),
        planar_units=("rad", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class PushTTask(SimulatedTask):
    """Pushing a T onto its goal, turned either way.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.pusht.scene"
    STATE_DIM = STATE_DIM
    RANDOM_DIM = start.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options
        self._start_yaw = torch.zeros(num_envs, device=self.device)
        self._overlap = GoalOverlap.of_env(self._find_env())

    def _find_env(self) -> Any:
        """A ManiSkill environment that knows the goal."""
        holder: Any = self.simulation.scenes[0] if isinstance(self.simulation, SceneList) else self.simulation
        return holder.env

    def _make_scene(self, env_id: str) -> PushTScene:
        return PushTScene(env_id)

    def _make_batch(self, env_id: str) -> Simulation:
        return PushTBatch(env_id, self.num_envs, self.device)

    def _draw_random(self, generator: np.random.Generator) -> NDArray[np.float64]:
        return start.draw_random(generator)

    def _make_start(self, random: Tensor) -> Tensor:
        return start.make_start(random, self.options)

    def _begin(self, rows: Tensor) -> None:
        self._start_yaw = torch.where(rows, self.state[:, 5], self._start_yaw)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress and success, both by what the present turn is worth."""
        progress = compute_closeness(after) - compute_closeness(before)
        success = self._overlap(*after[:, 3:].unbind(1)) >= self.options.success_threshold
        reward = self.options.progress_scale * progress + self.options.success_bonus * success
        clockwise, counterclockwise = self.options.turn_weights
        return reward * torch.where(after[:, 5] >= self._start_yaw, counterclockwise, clockwise), success, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return compute_track(self.state, self._start_yaw)
