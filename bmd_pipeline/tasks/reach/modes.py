"""True modes of Reach: the side on which the post was passed. For evaluation only."""

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.reach.env import POST, SIDES, TRACK_NAMES

COMMITTED = 0.05
"""Distance in metres to one side beyond which an episode that never came level with the post counts as an attempt."""
_X, _Y = TRACK_NAMES.index("x"), TRACK_NAMES.index("y")


def label_side(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """On which side of the post the fingertips first came level with it; see `ModeLabelling.label`.

    A failure that stayed before the post counts for the side it strayed to, or half for each.
    """
    passed = track[..., _X] >= POST[0]  # (T + 1, num_episodes)
    decided_at = torch.where(passed.any(0), passed.int().argmax(0), len(track) - 1)
    offset = track[..., _Y].gather(0, decided_at[None])[0] - POST[1]  # (num_episodes,)
    undecided = ~success & ~passed.any(0) & (offset.abs() < COMMITTED)
    left = torch.where(undecided, 0.5, (offset >= 0).float())
    return torch.stack((left, 1.0 - left), 1)


LABELLINGS = (Labelling("side", SIDES, label_side),)
