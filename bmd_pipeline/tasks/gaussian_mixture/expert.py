"""An expert that walks a curved path towards a goal and often stops short of it."""

import torch

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.seeds import make_generator
from bmd_pipeline.tasks.gaussian_mixture.env import GOAL_NAMES, GOALS, GaussianMixture
from bmd_pipeline.tasks.gaussian_mixture.options import Options


class GaussianMixtureExpert:
    """Demonstrates each of the four goals.

    An episode succeeds if it ends within `arrival_radius` of the aimed-at point, or within the task's goal radius of
    the goal. Some end short of the goal, so that fine-tuning has something to improve.
    """

    behaviours = GOAL_NAMES
    arrival_radius = 0.15

    def __init__(self, options: Options) -> None:
        self.options = options
        self.env = GaussianMixture(options, num_envs=1)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        """Plays one episode towards the wanted goal."""
        draw = make_generator(seed, "collect", "expert")  # the task draws its start from the seed itself
        goal = torch.tensor(GOALS[behaviour])
        sideways = torch.stack([-goal[1], goal[0]])
        bend = 0.35 * torch.randn((), generator=draw)
        pace = 0.75 + 0.25 * torch.rand((), generator=draw)
        shortfall = self.options.demo_shortfall * torch.rand((), generator=draw)
        target = goal * (1.0 - shortfall) + 0.05 * torch.randn(2, generator=draw)
        obs = self.env.reset(seed)
        seen, done = [], []
        while not bool(self.env.ended[0]):
            gap = target - obs[0]
            distance = gap.norm()
            # full pace until close, then slow down; the bend fades out half-way
            action = pace * (gap / distance.clamp(min=0.12) + sideways * bend * (distance - 0.5).clamp(min=0.0))
            action = action.clamp(-1.0, 1.0)
            seen.append(obs[0])
            done.append(action)
            noise = self.options.expert_noise * torch.randn(2, generator=draw)
            obs = self.env.step((action + noise)[None]).obs
        arrived = bool((obs[0] - target).norm() < self.arrival_radius)
        return Episode(
            torch.stack(seen).numpy(),
            torch.stack(done).numpy(),
            success=arrived or bool((obs[0] - goal).norm() < self.options.goal_radius),
            behaviour=behaviour,
        )

    def close(self) -> None:
        """Nothing to release."""


make_expert = GaussianMixtureExpert
