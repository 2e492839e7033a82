"""True behaviours of PushT episodes, read off their tracks. For evaluation only."""

import torch
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.tasks.pusht.env import BEHAVIOURS, TRACK_NAMES, TURNS

COMMITTED = 0.3
"""Rotation in rad beyond which a failed episode counts as an attempt at that direction of turning."""
_TOUCHED_METRES, _TOUCHED_RADIANS = 0.002, 0.02  # motion of the T that shows it was touched
_TIP = [TRACK_NAMES.index("tip_x"), TRACK_NAMES.index("tip_y")]
_TEE = [TRACK_NAMES.index("tee_x"), TRACK_NAMES.index("tee_y")]
_TURN, _YAW = TRACK_NAMES.index("turn"), TRACK_NAMES.index("tee_yaw")


def label_turn(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """Which way the T was turned; see `ModeLabelling.label`.

    A failed episode that hardly turned the T counts half for each direction.
    """
    turn = track[-1, :, _TURN]  # at the end, (num_episodes,) in rad, counter-clockwise positive
    undecided = ~success & (turn.abs() < COMMITTED)
    counterclockwise = torch.where(undecided, 0.5, (turn > 0).float())
    return torch.stack((1.0 - counterclockwise, counterclockwise), 1)


def label_turn_and_side(track: Tensor, length: Tensor, success: Tensor) -> Tensor:
    """Which way the T was turned, and on which side it was touched first; see `ModeLabelling.label`.

    An episode that never touched the T counts for both sides alike.
    """
    tee = track[..., _TEE]
    shift = (tee - tee[0]).norm(dim=-1)
    touched = (shift > _TOUCHED_METRES) | (track[..., _TURN].abs() > _TOUCHED_RADIANS)  # (T + 1, num_episodes)
    at = track[touched.int().argmax(0), torch.arange(track.shape[1], device=track.device)]  # when first touched
    offset = at[:, _TIP] - at[:, _TEE]
    across = at[:, _YAW].cos() * offset[:, 0] + at[:, _YAW].sin() * offset[:, 1]  # x in the T's frame
    right = torch.where(touched.any(0), (across > 0).float(), 0.5)
    side = torch.stack((1.0 - right, right), 1)
    return (label_turn(track, length, success)[:, :, None] * side[:, None, :]).flatten(1)


LABELLINGS = (Labelling("turn", tuple(TURNS), label_turn), Labelling("turn-side", BEHAVIOURS, label_turn_and_side))
