import os
import time

import numpy as np

from bmd_pipeline.environments.base import Episode
from bmd_pipeline.errors import TaskError
from toy_task.options import Options


class ToyExpert:
    behaviours = ("left", "right")

    def __init__(self, options: Options) -> None:
        self.options = options

    def demonstrate(self, behaviour: int, seed: int) -> Episode:
        if self.options.failure == "exit":
            os._exit(3)
        if self.options.failure == "raise":
            raise ZeroDivisionError("the arm fell off")
        if self.options.failure == "task_error":
            raise TaskError("the toy is broken")
        draw = np.random.default_rng(seed)
        if self.options.dawdle:
            time.sleep(seed % 10 / 1000)
        length = int(draw.integers(3, 10))
        obs = draw.normal(size=(length, 2)).astype(np.float32)
        action = np.full((length, 1), (-0.5, 0.5)[behaviour], np.float32) + 0.1 * obs[:, :1]
        action = action.clip(-1, 1)
        return Episode(obs, action, bool(draw.random() < self.options.success_rate), behaviour)

    def close(self) -> None:
        pass


def make_expert(options: Options) -> ToyExpert:
    return ToyExpert(options)
