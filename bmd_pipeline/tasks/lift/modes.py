"""True modes of Lift: the end by which the bar is lifted. For evaluation only."""

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.lift.env import ENDS, TRACK_NAMES

DESCENDED = 0.08
"""Height in metres below which the fingertips of a failed episode have chosen an end."""
COMMITTED = 0.03
"""Distance in metres along the bar from its middle beyond which a failure that never came down counts for an end."""
_ALONG, _Z = TRACK_NAMES.index("along"), TRACK_NAMES.index("z")


def label_end(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """Which end of the bar the fingertips were at: in the end for successes, when they came down for failures.

    See `ModeLabelling.label`; a failure that neither came down nor left the middle counts half for each end.
    """
    low = track[..., _Z] < DESCENDED  # (T + 1, num_episodes)
    came_down = low.any(0)
    decided_at = torch.where(came_down & ~success, low.int().argmax(0), len(track) - 1)
    along = track[..., _ALONG].gather(0, decided_at[None])[0]  # (num_episodes,)
    undecided = ~success & ~came_down & (along.abs() < COMMITTED)
    far = torch.where(undecided, 0.5, (along >= 0).float())
    return torch.stack((1.0 - far, far), 1)


LABELLINGS = (Labelling("end", ENDS, label_end),)
