"""True modes from made-up tracks."""

from __future__ import annotations

import torch

from bmd_pipeline.tasks.pusht.env import BEHAVIOURS, TRACK_NAMES
from bmd_pipeline.tasks.pusht.modes import LABELLINGS


def _track(turn: float, contact_x: float, yaw: float = 0.0, steps: int = 20) -> torch.Tensor:
    """(steps + 1, len(TRACK_NAMES)): the tip comes from afar to contact_x beside the T, then the T turns."""
    track = torch.zeros(steps + 1, len(TRACK_NAMES))
    column = {name: index for index, name in enumerate(TRACK_NAMES)}
    rotated = torch.linspace(0.0, 1.0, steps + 1).sub(0.5).clamp(min=0.0) * 2.0 * turn
    x = torch.full((steps + 1,), contact_x)
    x[0] = -contact_x  # it starts on the other side: only the contact counts
    angle = yaw + rotated
    track[:, column["tip_x"]], track[:, column["tip_y"]] = angle.cos() * x, angle.sin() * x
    track[:, column["turn"]], track[:, column["tee_yaw"]] = rotated, angle
    return track


def test_successes_are_one_hot_and_in_the_order_of_the_names() -> None:
    cases = [(-3.0, -0.1), (-3.0, 0.1), (3.0, -0.1), (3.0, 0.1)]
    track = torch.stack([_track(turn, x, yaw=2.0) for turn, x in cases], 1)
    turns, sides = (
        labelling.label(track, torch.full((4,), 20), torch.ones(4, dtype=torch.bool)) for labelling in LABELLINGS
    )
    assert LABELLINGS[0].modes == ("clockwise", "counterclockwise")
    assert LABELLINGS[1].modes == BEHAVIOURS
    torch.testing.assert_close(turns, torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(sides, torch.eye(4))


def test_failures_count_for_what_they_attempted() -> None:
    untouched = _track(0.0, 0.1)
    track = torch.stack([_track(-1.0, 0.1), _track(0.1, 0.1), untouched], 1)
    failed = torch.zeros(3, dtype=torch.bool)
    turns, sides = (labelling.label(track, torch.full((3,), 20), failed) for labelling in LABELLINGS)
    torch.testing.assert_close(turns, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]))
    torch.testing.assert_close(
        sides, torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25]])
    )


def test_a_small_turn_counts_where_the_episode_succeeded() -> None:
    track = _track(0.1, 0.1)[:, None]
    weights = LABELLINGS[0].label(track, torch.tensor([20]), torch.tensor([True]))
    torch.testing.assert_close(weights, torch.tensor([[0.0, 1.0]]))
