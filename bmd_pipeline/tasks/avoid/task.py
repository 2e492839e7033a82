"""Avoid as a batch of episodes, whatever simulates it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SimulatedTask
from bmd_pipeline.tasks.avoid import layout
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid.scene import AvoidScene
from bmd_pipeline.tasks.course.observation import compute_obs, obs_dim
from bmd_pipeline.tasks.course.referee import Referee

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Avoid",
        obs_dim=obs_dim(options.position_frequencies),
        action_dim=2,
        track_names=("x", "y"),
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class AvoidTask(SimulatedTask):
    """The obstacle course for a Panda with a stick; the track is the tip's position (x, y) in metres.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.avoid.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options
        self.referee = Referee(options, num_envs, layout.BODY_RADIUS, self.device)

    def _make_scene(self, env_id: str) -> AvoidScene:
        return AvoidScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _begin(self, rows: Tensor) -> None:
        self.referee.restart(rows)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.referee.judge(after)

    def _observe(self) -> Tensor:
        return compute_obs(self.state, self.options.position_frequencies)

    def track(self) -> Tensor:
        """Current track (num_envs, 2)."""
        return self.state.clone()
