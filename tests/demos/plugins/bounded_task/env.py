import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bounded_task.options import Options

LOW, HIGH = (100.0, -0.02), (300.0, 0.01)


def make_spec(options: Options) -> TaskSpec:
    return TaskSpec("Bounded", 1, 2, ("x", "y"), ("x", "y"), horizon=1, action_low=LOW, action_high=HIGH)


def make_env(options: Options, num_envs: int, *, device: torch.device | str, num_workers: int) -> "Bounded":
    return Bounded(options, num_envs, device)


class Bounded(VectorTask):
    """Shows a side, -1 or 1, and wants (200 + 60 side, -0.005 + 0.01 side)."""

    def __init__(self, options: Options, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device)
        self.spec = make_spec(options)
        self.side = torch.ones(num_envs)
        self.received = torch.zeros(num_envs, 2)
        self.generator = torch.Generator()

    def _reset(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self.side = 2.0 * torch.randint(2, (self.num_envs,), generator=self.generator) - 1.0

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.received = action
        miss = action - torch.stack([200 + 60 * self.side, -0.005 + 0.01 * self.side], dim=1)
        hit = (miss.abs() < torch.tensor([15.0, 0.0025])).all(dim=1)
        return hit.float(), torch.ones_like(hit), hit

    def _observe(self) -> Tensor:
        return self.side[:, None].clone()

    def track(self) -> Tensor:
        return torch.stack([self.side, self.side], dim=1)
