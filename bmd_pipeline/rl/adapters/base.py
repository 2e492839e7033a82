"""What an adapter is: one link of the chain from an observation to a chunk of actions.

A policy acts through a chain of links. The first makes the noise, the next turns it into a chunk, a further
one may correct the chunk. Each link draws from a distribution of its own and can say later how likely
the draw was: PPO treats every draw as an action and knows nothing of diffusion.

| method | noise | chunk |
|---|---|---|
| base policy | `PriorNoise` | `FrozenDenoiser` |
| dsrl | `SteeredNoise` | `FrozenDenoiser` |
| dppo | `PriorNoise` | `TunedDenoiser` |
| res | `PriorNoise` | `FrozenDenoiser`, `ResidualAction` |

With `-bmd` the noise is `SteeredNoise` with mode codes, or `PriorNoise` with the noise held for a code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Record = dict[str, Tensor]
"""What a link needs to compute the log-probability of its draw again, each (B, ...)."""


@dataclass(frozen=True)
class Situation:
    """What a link may look at.

    Attributes:
        cond: (B, cond_dim) encoded observation history.
        code: (B,) int64 mode code, held for the whole episode.
        held: (B, held_dim) noise coordinates chosen for the episode; zero-width without held noise.
        holding: (B,) bool whether they still apply.
    """

    cond: Tensor
    code: Tensor
    held: Tensor
    holding: Tensor

    def rows(self, index: Tensor) -> Situation:
        """The situations at `index`."""
        return Situation(self.cond[index], self.code[index], self.held[index], self.holding[index])


class Adapter(nn.Module, ABC):
    """One link.

    What it computes may be recorded as a CUDA graph (`rl.graphs`): it must not read from the device, and what a
    schedule changes is a buffer, changed in place.

    Attributes:
        num_factors: draws it makes per decision; zero if it is deterministic or fixed.
        factor_weights: what the advantage counts for each draw; empty means fully.
        learning_rate: its own, or None for the one of PPO.
        entropy_dims: dimensions of its draws whose spread is trained; their entropy can collapse.
    """

    num_factors: int = 0
    factor_weights: tuple[float, ...] = ()
    learning_rate: float | None = None
    entropy_dims: int = 0

    def begin_iteration(self, iteration: int) -> None:
        """Told before each training rollout, counted from 0, for links with a schedule."""

    @abstractmethod
    def act(self, x: Tensor, situation: Situation, generator: torch.Generator, explore: bool) -> tuple[Tensor, Record]:
        """Maps what the link before it made.

        Args:
            x: (B, noise_dim) noise or normalised chunk; ignored by the first link.
            situation: what the policy sees.
            generator: draws.
            explore: draw as in training; if False, act as deployed.

        Returns:
            (B, noise_dim) for the next link, and the record of the draws.
        """

    def log_prob(self, record: Record, situation: Situation) -> Tensor:
        """Log-probability (B, num_factors) of recorded draws under the present parameters."""
        return situation.cond.new_zeros(len(situation.cond), 0)

    def entropy(self, situation: Situation) -> Tensor:
        """Entropy (B,) in nats of the draws, zero if there are none."""
        return situation.cond.new_zeros(len(situation.cond))

    def trainable(self) -> list[nn.Parameter]:
        """What PPO trains."""
        return []
