"""True modes of Kitchen: the order in which two things were done. For evaluation only."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.environments.base import ModeLabeler
from bmd_pipeline.tasks.kitchen.env import ORDERS, THINGS


class OrderLabelling:
    """The first two things that were done, in their order."""

    name = "order"
    modes = ORDERS

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        """See `ModeLabeler.label`; a failure counts for the orders that begin with what it did, or for all."""
        done = track[..., : len(THINGS)] > 1.0  # (T + 1, num_episodes, 3)
        never = torch.full_like(length, len(track))[:, None]
        when = torch.where(done.any(0), done.int().argmax(0), never)  # (num_episodes, 3)
        first, second = when.argsort(dim=1, stable=True)[:, :2].unbind(1)
        none_done, one_done = (when.min(1).values == never[:, 0]), ~success
        pairs = torch.tensor([[THINGS.index(thing) for thing in order.split("-")] for order in ORDERS]).to(track.device)
        fits = (pairs[:, 0] == first[:, None]) | none_done[:, None]  # (num_episodes, len(ORDERS))
        fits &= (pairs[:, 1] == second[:, None]) | one_done[:, None]
        return fits.float() / fits.sum(1, keepdim=True)


LABELLINGS: tuple[ModeLabeler, ...] = (OrderLabelling(),)
