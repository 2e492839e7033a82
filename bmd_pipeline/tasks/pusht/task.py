"""PushT as a batch of episodes, whatever simulates it.

Subclasses move scenes and read their state; start poses, observation, reward, success and track are here, so
that the CPU and the GPU environment mean the same.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.tasks.base import TaskSpec, VectorTask
from bmd_pipeline.tasks.pusht.geometry import GOAL
from bmd_pipeline.tasks.pusht.options import Options
from bmd_pipeline.tasks.pusht.overlap import GoalOverlap
from bmd_pipeline.tasks.pusht.state import (
    OBS_DIM,
    STATE_DIM,
    TRACK_NAMES,
    compute_closeness,
    compute_obs,
    compute_track,
    wrap,
)

CONTROL_HZ = 20.0
REST_QPOS: NDArray[np.float64] = np.array([0.662, 0.212, 0.086, -2.685, -0.115, 2.898, 1.673])
"""Joint angles in rad at which episodes start, but for noise; ManiSkill's own."""
_QPOS_NOISE = 0.02
_BOX_MIDDLE, _BOX_SIZE = np.array([0.0, 0.05]), np.array([0.2, 0.3])
"""ManiSkill's box of start positions, relative to the goal, in metres."""


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


def draw_start(options: Options, seed: int, row: int, episode: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws an episode's start; it depends on nothing but the arguments.

    Args:
        options: the task's settings.
        seed: what the environment was reset with.
        row: number of the scene among all workers' scenes.
        episode: number of the episode in that scene since the reset.

    Returns:
        Joint angles (7,) in rad and pose of the T (3,).
    """
    generator = np.random.default_rng((seed, row, episode))
    qpos = REST_QPOS + generator.normal(0.0, _QPOS_NOISE, len(REST_QPOS))
    offset = _BOX_MIDDLE + options.position_box * (generator.uniform(-0.5, 0.5, 2) * _BOX_SIZE)
    yaw = GOAL[2] + np.pi + np.deg2rad(generator.uniform(-options.yaw_range_deg, options.yaw_range_deg))
    return qpos, np.array([*(GOAL[:2] + offset), yaw])


class PushTTask(VectorTask):
    """Common part of the PushT environments.

    Args:
        options: the task's settings.
        num_envs: scenes stepped together.
        first_row: number of the first of them among all workers' scenes.
        device: where tensors live.
        auto_reset: start a new episode where one ended.
    """

    def __init__(
        self,
        options: Options,
        num_envs: int,
        *,
        first_row: int = 0,
        device: torch.device | str = "cpu",
        auto_reset: bool = True,
    ) -> None:
        super().__init__(num_envs, device, auto_reset)
        self.spec = make_spec(options)
        self.options = options
        self.state = torch.zeros(num_envs, STATE_DIM, device=self.device)
        self._first_row = first_row
        self._seed_value = 0
        self._episodes = np.zeros(num_envs, np.int64)
        self._start_yaw = torch.zeros(num_envs, device=self.device)
        self._closeness = torch.zeros(num_envs, device=self.device)
        self._overlap = self._build()

    @abstractmethod
    def _build(self) -> GoalOverlap:
        """Builds the scenes; returns the success measure taken from one of them."""

    @abstractmethod
    def _place(self, rows: NDArray[np.int64], qpos: NDArray[np.float64], tee: NDArray[np.float64]) -> Tensor:
        """Starts scenes afresh: at rest, arm at qpos (len(rows), 7), T at tee (len(rows), 3).

        Returns:
            Their state (len(rows), STATE_DIM).
        """

    @abstractmethod
    def _move(self, action: Tensor, active: Tensor) -> Tensor:
        """Moves active scenes by action (num_envs, 2).

        Returns:
            State (num_envs, STATE_DIM), yaw in any winding; rows of inactive scenes are ignored.
        """

    def _seed(self, seed: int) -> None:
        self._seed_value = seed
        self._episodes[:] = 0

    def _reset_rows(self, rows: Tensor) -> None:
        chosen = rows.cpu().numpy().nonzero()[0]
        starts = [
            draw_start(self.options, self._seed_value, self._first_row + int(row), int(self._episodes[row]))
            for row in chosen
        ]
        self._episodes[chosen] += 1
        state = self._place(chosen, np.stack([qpos for qpos, _ in starts]), np.stack([tee for _, tee in starts]))
        self.state[rows] = state
        self._start_yaw[rows] = state[:, 5]
        self._closeness[rows] = compute_closeness(state)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        moved = self._move(action, active)
        moved[:, 5] = self.state[:, 5] + wrap(moved[:, 5] - self.state[:, 5])
        self.state = torch.where(active[:, None], moved, self.state)
        closeness = compute_closeness(self.state)
        success = self._overlap(*self.state[:, 3:].unbind(1)) >= self.options.success_threshold
        reward = self.options.progress_scale * (closeness - self._closeness) + self.options.success_bonus * success
        clockwise, counterclockwise = self.options.turn_weights
        reward = reward * torch.where(self.state[:, 5] >= self._start_yaw, counterclockwise, clockwise)
        self._closeness = closeness
        return reward, success, success

    def _observe(self) -> Tensor:
        return compute_obs(self.state)

    def track(self) -> Tensor:
        """Current track (num_envs, track_dim)."""
        return compute_track(self.state, self._start_yaw)
