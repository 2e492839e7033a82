import numpy as np
import torch

from bmd_pipeline.environments.base import Episode, play
from bounded_task.env import Bounded
from bounded_task.options import Options


class Archer:
    behaviours = ("aim",)

    def __init__(self, options: Options) -> None:
        self.env = Bounded(options, 1)

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        obs = self.env.reset(seed)
        side = float(self.env.side[0])
        noise = 0.02 * np.random.default_rng(seed).normal(size=(1, 2))
        aim = np.array([0.6 * side, 2.0 / 3.0 * side]) + noise[0]
        return play(self.env, obs, lambda: aim, torch.zeros(1, 2).numpy(), behaviour)

    def close(self) -> None:
        pass


def make_expert(options: Options) -> Archer:
    return Archer(options)
