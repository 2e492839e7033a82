"""Anymal as a batch of episodes, whatever simulates it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.sim.backend import SimulatedTask
from bmd_pipeline.tasks.anymal import layout
from bmd_pipeline.tasks.anymal.options import Options
from bmd_pipeline.tasks.anymal.scene import AnymalScene

CONTROL_HZ = 20.0


def make_spec(options: Options) -> TaskSpec:
    """Fixed facts of the task."""
    return TaskSpec(
        name="Anymal",
        obs_dim=layout.OBS_DIM,
        action_dim=layout.NUM_JOINTS,
        track_names=layout.TRACK_NAMES,
        planar=("x", "y"),
        planar_units=("m", "m"),
        horizon=options.horizon,
        control_hz=CONTROL_HZ,
    )


class AnymalTask(SimulatedTask):
    """Walking to one of four beacons; falling ends an episode as a failure.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        settings: see `SimulatedTask`.
    """

    ENV_MODULE = "bmd_pipeline.tasks.anymal.maniskill"
    STATE_DIM = layout.STATE_DIM
    RANDOM_DIM = layout.RANDOM_DIM

    def __init__(self, options: Options, num_envs: int, **settings: Any) -> None:
        super().__init__(make_spec(options), num_envs, **settings)
        self.options = options

    def _make_scene(self, env_id: str) -> AnymalScene:
        return AnymalScene(env_id)

    def _make_start(self, random: Tensor) -> Tensor:
        return layout.make_start(random)

    def _judge(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pays progress, and for success what the beacon is worth."""
        fallen = layout.has_fallen(after)
        distance, nearest = layout.compute_distances(after).min(dim=1)
        success = (distance < self.options.goal_radius) & ~fallen
        progress = layout.compute_closeness(after) - layout.compute_closeness(before)
        bonus = after.new_tensor(self.options.direction_weights)[nearest] * success
        return self.options.progress_scale * progress + bonus, success | fallen, success

    def _observe(self) -> Tensor:
        return layout.compute_obs(self.state, self.elapsed)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return layout.compute_track(self.state)
