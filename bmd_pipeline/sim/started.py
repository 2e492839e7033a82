"""The base of this project's own ManiSkill environments: episodes that start from rows of numbers.

Everything is batched tensors on the environment's device, so that a subclass runs in ManiSkill's GPU simulation as it
is. Subclasses are registered environments that any user of ManiSkill can make; the fast stepping on the CPU stands
beside them, not in them. Importing this module imports ManiSkill.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from mani_skill.envs.sapien_env import BaseEnv
from torch import Tensor


class StartedEnv(BaseEnv):  # type: ignore[misc]  # ManiSkill ships no types
    """An environment whose starts, success and reward are functions of rows of numbers.

    `reset(options={"start": ...})` starts the episodes of `env_idx` from given rows instead of drawing them.
    """

    SUPPORTED_REWARD_MODES = ["normalized_dense", "dense", "sparse", "none"]
    RANDOM_DIM: int
    """How many uniform random numbers an episode's start is made of."""

    @abstractmethod
    def make_start(self, random: Tensor) -> Tensor:
        """Starts (n, start_dim) from numbers (n, RANDOM_DIM) that are uniform in [0, 1); joint angles come first."""

    @abstractmethod
    def _place(self, env_idx: Tensor, start: Tensor) -> None:
        """Places robot and objects of the scenes env_idx (n,) as starts (n, start_dim) say, at rest."""

    @abstractmethod
    def read_state(self) -> Tensor:
        """The scenes' state (num_envs, state_dim)."""

    @abstractmethod
    def evaluate(self) -> dict[str, Tensor]:
        """Flags `success`, and `fail` where there is failing, each (num_envs,), and what else is worth knowing."""

    @abstractmethod
    def compute_closeness(self) -> Tensor:
        """How near each scene (num_envs,) is to success, from 0 to 1: the dense reward before success."""

    def _initialize_episode(self, env_idx: Tensor, options: dict[str, Any]) -> None:
        with torch.device(self.device):
            start = options.get("start")
            if start is None:
                start = self.make_start(torch.rand(len(env_idx), self.RANDOM_DIM))
            self._place(env_idx, start)

    def compute_dense_reward(self, obs: Any, action: Tensor, info: dict[str, Tensor]) -> Tensor:
        """Closeness to success, and 1 once there; (num_envs,)."""
        return torch.where(info["success"], 1.0, 0.9 * self.compute_closeness())

    def compute_normalized_dense_reward(self, obs: Any, action: Tensor, info: dict[str, Tensor]) -> Tensor:
        """The dense reward, which is in [0, 1] as it is."""
        return self.compute_dense_reward(obs, action, info)
