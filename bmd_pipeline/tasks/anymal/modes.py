"""True modes of Anymal: the direction of the beacon. For evaluation only."""

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.anymal.env import DIRECTIONS, TRACK_NAMES

COMMITTED = 0.15
"""Distance in metres from the start beyond which a failed episode counts for the direction it went."""
_X, _Y = TRACK_NAMES.index("x"), TRACK_NAMES.index("y")


def label_direction(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """In which quarter, as seen from the start, the base is at the end; see `ModeLabelling.label`.

    A failure that stayed at the start counts a quarter for each direction.
    """
    x, y = track[-1, :, _X], track[-1, :, _Y]
    along = torch.stack((x, y, -x, -y), 1)  # (num_episodes, 4)
    chosen = torch.nn.functional.one_hot(along.argmax(1), len(DIRECTIONS)).to(track.dtype)
    undecided = ~success & (torch.hypot(x, y) < COMMITTED)
    return torch.where(undecided[:, None], 1.0 / len(DIRECTIONS), chosen)


LABELLINGS = (Labelling("direction", DIRECTIONS, label_direction),)
