"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class EMA(Generic[Module]):
    """Follows a network: average ← decay·average + (1 - decay)·weights after every step.

    Early on the decay is smaller, (1 + n) / (10 + n) after n updates, so that the average does not hang
    on to the random start.

    Args:
        module: the network that is trained.
        decay: decay per update, in [0, 1).
    """

    def __init__(self, module: Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = copy.deepcopy(module).requires_grad_(False)
        self._average: list[Tensor] = list(self.average.parameters())
        self._source: list[Tensor] = list(module.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Takes one step towards the current weights."""
        torch._foreach_lerp_(self._average, self._source, 1.0 - self.current_decay())
        self.updates += 1

    def current_decay(self) -> float:
        """Decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))
