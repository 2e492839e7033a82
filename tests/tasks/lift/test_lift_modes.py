"""True modes of Lift from made-up tracks."""

from __future__ import annotations

import torch

from bmd_pipeline.tasks.lift.env import TRACK_NAMES
from bmd_pipeline.tasks.lift.modes import LABELLINGS

(LABELLING,) = LABELLINGS


def _weigh(*places: tuple[float, float], success: bool) -> list[float]:
    """Weights of one episode that visits places (along the bar, height)."""
    track = torch.zeros(len(places), 1, len(TRACK_NAMES))
    track[:, 0, :2] = torch.tensor(places)
    return LABELLING.label(track, torch.tensor([len(places) - 1]), torch.tensor([success]))[0].tolist()


def test_the_end_in_hand_counts_for_successes() -> None:
    assert LABELLING.modes == ("near", "far")
    assert _weigh((0.0, 0.17), (-0.08, 0.02), (-0.08, 0.1), success=True) == [1.0, 0.0]
    assert _weigh((0.0, 0.17), (-0.08, 0.02), (0.0, 0.15), (0.08, 0.02), (0.08, 0.1), success=True) == [0.0, 1.0]


def test_failures_count_for_where_they_came_down() -> None:
    assert _weigh((0.0, 0.17), (0.08, 0.02), (0.0, 0.15), (-0.1, 0.15), success=False) == [0.0, 1.0]
    assert _weigh((0.0, 0.17), (-0.01, 0.02), (0.1, 0.2), success=False) == [1.0, 0.0]


def test_failures_that_never_came_down() -> None:
    assert _weigh((0.0, 0.17), (0.02, 0.15), success=False) == [0.5, 0.5]
    assert _weigh((0.0, 0.17), (-0.06, 0.15), success=False) == [1.0, 0.0]
