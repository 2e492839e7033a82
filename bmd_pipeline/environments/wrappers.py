"""An environment wrapper that disturbs actions and observations."""

from dataclasses import replace

import torch
from torch import Tensor

from bmd_pipeline.config.schema import Disturbance
from bmd_pipeline.environments.base import TaskEnv, Transition
from bmd_pipeline.seeds import make_generator


class DisturbedEnv(TaskEnv):
    """An environment seen and moved through a disturbance.

    Its track, rewards and successes stay true. Noise comes from generators of its own, which `reset` seeds: the same
    seed brings the same noise to every policy, however many steps a chunk has and however many processes simulate.
    Without a disturbance nothing changes, bit for bit. obs_std (obs_dim,) is the unit of the noise on observations.
    """

    def __init__(self, env: TaskEnv, disturbance: Disturbance, obs_std: Tensor) -> None:
        self._env = env
        self._disturbance = disturbance
        self._obs_noise = disturbance.obs_noise * obs_std
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device
        self._seed(0)

    def reset(self, seed: int) -> Tensor:
        self._seed(seed)
        self._seen = self._observe(self._env.reset(seed))
        return self._seen

    def track(self) -> Tensor:
        return self._env.track()

    def step_chunk(self, actions: Tensor) -> Transition:
        moved = self._env.step_chunk(self._disturb(actions))
        obs_path = []
        for step, obs in enumerate(moved.obs_path):
            running = step < moved.steps  # an ended episode repeats its last observation, noise included
            self._seen = torch.where(running[:, None], self._observe(obs), self._seen)
            obs_path.append(self._seen)
        return replace(moved, obs_path=torch.stack(obs_path))

    def close(self) -> None:
        self._env.close()

    def _seed(self, seed: int) -> None:
        delay, action_dim = self._disturbance.action_delay, self.spec.action_dim
        self._action_draws = make_generator(seed, "disturbance", "action", device=self.device)
        self._obs_draws = make_generator(seed, "disturbance", "obs", device=self.device)
        self._waiting = torch.zeros(self.num_envs, delay, action_dim, device=self.device)
        self._seen = torch.zeros(self.num_envs, self.spec.obs_dim, device=self.device)

    def _disturb(self, actions: Tensor) -> Tensor:
        """What is executed instead of actions (num_envs, n, action_dim)."""
        length, world = actions.shape[1], self._disturbance
        queue = torch.cat([self._waiting, world.action_gain * actions.clamp(-1.0, 1.0)], dim=1)
        executed, self._waiting = queue[:, :length].clone(), queue[:, length:]
        if world.action_noise > 0:
            for step in range(length):  # one draw a step, or noise would depend on the length of chunks
                executed[:, step] += world.action_noise * self._draw(executed[:, step], self._action_draws)
        if world.locked_action is not None:
            executed[..., world.locked_action] = 0.0
        return executed

    def _observe(self, obs: Tensor) -> Tensor:
        if self._disturbance.obs_noise == 0:
            return obs
        return obs + self._obs_noise * self._draw(obs, self._obs_draws)

    def _draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=self.device)
