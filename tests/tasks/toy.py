"""A task small enough to work out by hand: a counter that walks along a line."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bmd_pipeline.environments.base import Episode, TaskSpec, VectorTask

SPEC = TaskSpec(name="Toy", obs_dim=1, action_dim=1, track_names=("x", "steps"), planar=("x", "steps"), horizon=6)


class Walk(VectorTask):
    """Adds the action to x and pays it; at |x| >= 3 the episode ends, in success on the right side.

    Starts lie within 0.1 of zero, so episodes end after 3 full steps at the earliest.
    """

    spec = SPEC

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.x = torch.zeros(num_envs)
        self.generator = torch.Generator()

    def _reset(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self.x = 0.1 * torch.rand(self.num_envs, generator=self.generator)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.x = torch.where(active, self.x + action[:, 0], self.x)
        return action[:, 0], self.x.abs() >= 3, self.x >= 3

    def _observe(self) -> Tensor:
        return self.x[:, None].clone()

    def track(self) -> Tensor:
        return torch.stack([self.x, self.elapsed.float()], dim=1)


class WalkExpert:
    """Walks right, fast or slowly."""

    behaviours = ("fast", "slow")

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        pace = (1.0, 0.6)[behaviour]
        obs = np.arange(0, 3, pace, dtype=np.float32)[:, None]
        return Episode(obs, np.full_like(obs, pace), success=True, behaviour=behaviour)

    def close(self) -> None:
        """Nothing to release."""


class SideLabelling:
    """The side an episode ends on; failures count half for each."""

    name = "side"
    modes = ("left", "right")

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        right = torch.where(success, 1.0, 0.5)
        return torch.stack([1 - right, right], dim=1)
