"""True behaviours of PushT episodes, read off their tracks. For evaluation only."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.environments.base import ModeLabeler
from bmd_pipeline.tasks.pusht.env import BEHAVIOURS, TRACK_NAMES, TURNS

COMMITTED = 0.3
"""Rotation in rad beyond which a failed episode counts as an attempt at that direction of turning."""
_TOUCHED_METRES, _TOUCHED_RADIANS = 0.002, 0.02  # motion of the T that shows it was touched
_TIP, _TEE = TRACK_NAMES.index("tip_x"), TRACK_NAMES.index("tee_x")
_TURN, _YAW = TRACK_NAMES.index("turn"), TRACK_NAMES.index("tee_yaw")


def find_first_side(track: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the T was touched first on its right, seen along its stem, and whether it was touched at all.

    Both are bool (num_episodes,), the first means nothing where it was not touched; track is (T + 1, num_episodes,
    track_dim).
    """
    tee = track[..., _TEE : _TEE + 2]
    shift = (tee - tee[0]).norm(dim=-1)
    touched = (shift > _TOUCHED_METRES) | (track[..., _TURN].abs() > _TOUCHED_RADIANS)  # (T + 1, num_episodes)
    first = touched.int().argmax(0)
    episode = torch.arange(track.shape[1], device=track.device)
    at = track[first, episode]
    offset = at[:, _TIP : _TIP + 2] - at[:, _TEE : _TEE + 2]
    across = at[:, _YAW].cos() * offset[:, 0] + at[:, _YAW].sin() * offset[:, 1]  # x in the T's frame
    return across > 0, touched.any(0)


def _weigh_turn(track: Tensor, success: Tensor) -> Tensor:
    """Weights (num_episodes, 2) of clockwise and counter-clockwise."""
    turn = track[-1, :, _TURN]  # at the end, (num_episodes,) in rad, counter-clockwise positive
    counterclockwise = (turn > 0).float()
    undecided = ~success & (turn.abs() < COMMITTED)
    share = torch.where(undecided, torch.full_like(turn, 0.5), counterclockwise)
    return torch.stack((1.0 - share, share), 1)


class TurnLabelling:
    """Which way the T was turned."""

    name = "turn"
    modes: tuple[str, ...] = tuple(TURNS)

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        """See `ModeLabeler.label`; a failed episode that hardly turned the T counts half for each direction."""
        return _weigh_turn(track, success)


class TurnSideLabelling:
    """Which way the T was turned, and on which side it was touched first."""

    name = "turn-side"
    modes: tuple[str, ...] = BEHAVIOURS

    def label(self, track: Tensor, length: Tensor, success: Tensor) -> Tensor:
        """See `ModeLabeler.label`; an episode that never touched the T counts for both sides alike."""
        right, touched = find_first_side(track)
        share = torch.where(touched, right.float(), torch.full_like(right, 0.5, dtype=torch.float32))
        side = torch.stack((1.0 - share, share), 1)
        weights = _weigh_turn(track, success)[:, :, None] * side[:, None, :]  # (num_episodes, turn, side)
        return weights.flatten(1)


LABELLINGS: tuple[ModeLabeler, ...] = (TurnLabelling(), TurnSideLabelling())
