"""A task made harder than the one its policy was trained in: noisy observations, late, weak or missing actions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bmd_pipeline.tasks.base import TaskEnv, TaskSpec, Transition


class DisturbedEnv:
    """An environment seen and moved through a disturbance. Its track stays true: what happened is not in doubt.

    Args:
        env: the environment; closed by whoever made it.
        generator: draws the noise.
        obs_noise: (obs_dim,) standard deviation of the noise on each component of the observation; None: no noise.
        action_delay: control steps by which actions come late; until the first arrives, the action is 0.
        action_scale: factor on every action.
        locked_action: component of the action that is held at 0; None: none.
    """

    def __init__(
        self,
        env: TaskEnv,
        generator: torch.Generator,
        *,
        obs_noise: Tensor | None = None,
        action_delay: int = 0,
        action_scale: float = 1.0,
        locked_action: int | None = None,
    ) -> None:
        self._env = env
        self._generator = generator
        self._obs_noise = obs_noise
        self._action_scale = action_scale
        self._locked_action = locked_action
        self.spec: TaskSpec = env.spec
        self.num_envs = env.num_envs
        self.device = env.device
        self._still = torch.zeros(env.num_envs, action_delay, env.spec.action_dim, device=env.device)
        self._waiting = self._still  # (num_envs, action_delay, action_dim)

    def reset(self, seed: int) -> Tensor:
        """As the environment's, with noise."""
        self._waiting = self._still
        return self._blur(self._env.reset(seed))

    def track(self) -> Tensor:
        """As the environment's."""
        return self._env.track()

    def step(self, action: Tensor) -> Transition:
        """As the environment's, disturbed."""
        return self.step_chunk(action[:, None])

    def step_chunk(self, actions: Tensor) -> Transition:
        """As the environment's, disturbed."""
        actions = self._action_scale * actions
        if self._locked_action is not None:
            actions[..., self._locked_action] = 0.0
        queue = torch.cat([self._waiting, actions], dim=1)
        length = actions.shape[1]
        self._waiting = queue[:, length:]
        moved = self._env.step_chunk(queue[:, :length])
        return replace(moved, obs=self._blur(moved.obs), obs_path=self._blur(moved.obs_path))

    def close(self) -> None:
        """As the environment's."""
        self._env.close()

    def _blur(self, obs: Tensor) -> Tensor:
        if self._obs_noise is None:
            return obs
        return obs + self._obs_noise * torch.randn(obs.shape, generator=self._generator, device=obs.device)
