"""Filtered behaviour cloning: a policy imitates its own successful episodes, and nothing judges them but success.

Source: self-imitation (Oh et al. 2018, arXiv 1806.05635), here by the loss of pre-training and, as in BAIL (Chen et al.
2020, arXiv 1910.12179), by leaving out what was not good enough.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bmd_pipeline.config.schema import FinetuneConfig
from bmd_pipeline.modes.inference import draw_balanced
from bmd_pipeline.policies.networks import descend
from bmd_pipeline.rl.adapters import ClonedDenoiser
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.rollout import Rollout

MEMORY = 5
"""Rollouts whose successes are cloned. The newest alone may hold none of a code that rarely succeeds, and older ones
show how a worse policy acted: in single runs 1 was the worst of 1, 5 and 10 on GaussianMixture, 10 on AvoidPoint."""
BATCH_SIZE = 512
"""Chunks per gradient step, as many as in teaching codes."""


class FilteredCloner:
    """Clones the chunks that an agent planned in its successful episodes into its denoiser.

    With codes an episode must also show its code's own behaviour; its chunks are cloned under that code, and all codes
    that occur are equally likely in a batch.
    """

    demand: float | None = None

    def __init__(self, agent: Agent, adapter: ClonedDenoiser, settings: FinetuneConfig) -> None:
        self.policy = adapter.policy
        self.steps = settings.cloning.steps
        self.optimizer = torch.optim.Adam(adapter.trainable(), lr=settings.cloning.learning_rate, fused=True)
        self.optimizers: dict[str, Optimizer] = {"policy_optimizer": self.optimizer}
        self._chunk = f"{agent.adapters.index(adapter)}.chunk"  # its name among the draws of a rollout
        codes = torch.zeros(0, dtype=torch.int64, device=self.policy.device)
        self.kept = {  # of the last rollouts, M decisions that led to success
            "chunk": torch.zeros(0, self.policy.noise_dim, device=codes.device),  # what was planned, normalised
            "cond": torch.zeros(0, self.policy.cond_dim, device=codes.device),  # what the policy saw
            "code": codes,
            "age": codes,  # rollouts since it was played
        }

    def learn(self, played: Rollout, own: Tensor, generator: torch.Generator, **_: object) -> dict[str, float]:
        """Keeps the successes of a rollout, of which `own` (N,) says what episodes show their code's behaviour, and
        clones what is kept.

        It has neither rewards nor a critic, which what else a trainer says is about. Where nothing has succeeded, the
        policy stays as it is.
        """
        good = played.active_mask & played.success & own  # (T, N)
        newest = {
            "chunk": played.draws[self._chunk][good],
            "cond": played.cond[:-1][good],
            "code": played.code.expand_as(good)[good],
        }
        newest["age"] = torch.zeros_like(newest["code"])
        recent = self.kept["age"] < MEMORY - 1
        self.kept["age"] = self.kept["age"] + 1
        self.kept = {name: torch.cat([old[recent], newest[name]]) for name, old in self.kept.items()}
        chunk, cond, code = (self.kept[name] for name in ("chunk", "cond", "code"))
        steps = self.steps if len(code) else 0
        total = torch.zeros((), device=code.device)
        for rows in draw_balanced(code, BATCH_SIZE, steps, generator):
            t, noise = self.policy.draw_corruption(len(rows), generator)
            loss = self.policy.denoising_loss(chunk[rows], cond[rows], t, noise, code[rows])
            descend(self.optimizer, loss)
            total += loss.detach()
        return {
            "losses/cloning": float(total) / max(1, steps),
            "losses/policy_steps": float(steps),
            "rollout/cloned_chunks": float(len(code)),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What is kept."""
        return self.kept, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self.kept = {name: tensor.to(self.policy.device) for name, tensor in tensors.items()}
