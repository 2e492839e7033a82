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

With `-bmd` every link is told the mode code: the denoiser is the coded one, steering and residual see the code. In the
published form the denoiser has no codes, and the noise is always `SteeredNoise`.
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
        code: (B,) int64 mode code, the same for the whole episode.
    """

    cond: Tensor
    code: Tensor

    def rows(self, index: Tensor) -> Situation:
        """The situations at `index`."""
        return Situation(self.cond[index], self.code[index])


@dataclass(frozen=True)
class TrustRegion:
    """How far PPO may move what a link draws from, on one rollout.

    Attributes:
        learning_rate: of the link's parameters.
        clip_ratio: ε; probability ratios beyond 1 ± ε earn nothing more.
        target_kl: the link stops learning once the approximate KL of one of its draws passes 1.5 times this.
    """

    learning_rate: float
    clip_ratio: float
    target_kl: float


class Adapter(nn.Module, ABC):
    """One link.

    What it computes may be recorded as a CUDA graph (`rl.graphs`): it must not read from the device, and what a
    schedule changes is a buffer, changed in place.

    Attributes:
        num_factors: draws it makes per decision; zero if it is deterministic or fixed.
        factor_weights: what the advantage counts for each draw; empty means fully.
        trust_region: its own, or None for the one of PPO.
        entropy_dims: dimensions of its draws whose spread is trained; their entropy can collapse.
        target_entropy: nats per decision that the spread shall not fall below, or None.
    """

    num_factors: int = 0
    factor_weights: tuple[float, ...] = ()
    trust_region: TrustRegion | None = None
    entropy_dims: int = 0
    target_entropy: float | None = None

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

    def evaluate(self, record: Record, situation: Situation) -> tuple[Tensor, Tensor]:
        """How likely recorded draws are under the present parameters, and how spread out such draws are.

        Args:
            record: from `act`.
            situation: what the policy saw.

        Returns:
            log-probability (B, num_factors), and entropy (B,) in nats of the draws whose spread is trained, zero if
            there are none. One pass of the network serves both.
        """
        cond = situation.cond
        return cond.new_zeros(len(cond), 0), cond.new_zeros(len(cond))

    def trainable(self) -> list[nn.Parameter]:
        """What PPO trains."""
        return []
