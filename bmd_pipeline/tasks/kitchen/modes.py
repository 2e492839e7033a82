"""True modes of Kitchen: the order in which two things were done. For evaluation only."""

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.kitchen.env import ORDERS, THINGS


def label_order(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """The first two things that were done, in their order; see `ModeLabelling.label`.

    A failure counts for the orders that begin with what it did, or for all.
    """
    done = track[..., : len(THINGS)] > 1.0  # (T + 1, num_episodes, 3)
    when = torch.where(done.any(0), done.int().argmax(0), len(track))  # (num_episodes, 3); after the end for never
    first, second = when.argsort(dim=1, stable=True)[:, :2].unbind(1)
    pairs = torch.tensor([[THINGS.index(thing) for thing in order.split("-")] for order in ORDERS]).to(track.device)
    none_done = when.min(1).values == len(track)
    fits = (pairs[:, 0] == first[:, None]) | none_done[:, None]  # (num_episodes, len(ORDERS))
    fits &= (pairs[:, 1] == second[:, None]) | ~success[:, None]
    return fits.float() / fits.sum(1, keepdim=True)


LABELLINGS = (Labelling("order", ORDERS, label_order),)
