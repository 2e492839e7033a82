"""True modes of Reach from made-up tracks."""

from __future__ import annotations

import torch

from bmd_pipeline.tasks.reach.env import POST, TRACK_NAMES
from bmd_pipeline.tasks.reach.modes import LABELLINGS

(LABELLING,) = LABELLINGS


def _weigh(*corners: tuple[float, float], success: bool) -> list[float]:
    """Weights of one episode that visits corners (x, y) from the post's middle."""
    track = torch.zeros(len(corners), 1, len(TRACK_NAMES))
    track[:, 0, :2] = torch.tensor(corners) + torch.tensor(POST)
    return LABELLING.label(track, torch.tensor([len(corners) - 1]), torch.tensor([success]))[0].tolist()


def test_the_side_of_passing_counts_not_where_it_ends() -> None:
    assert LABELLING.modes == ("left", "right")
    assert _weigh((-0.1, 0.0), (-0.01, 0.15), (0.01, 0.16), (0.1, -0.02), success=True) == [1.0, 0.0]
    assert _weigh((-0.1, 0.02), (0.01, -0.16), (0.1, 0.02), success=True) == [0.0, 1.0]
    assert _weigh((-0.1, 0.02), (0.01, -0.16), (-0.1, 0.0), (0.01, 0.2), success=False) == [0.0, 1.0]


def test_failures_before_the_post_count_for_where_they_strayed() -> None:
    assert _weigh((-0.1, 0.0), (-0.08, 0.02), success=False) == [0.5, 0.5]
    assert _weigh((-0.1, 0.0), (-0.08, 0.09), success=False) == [1.0, 0.0]
    assert _weigh((-0.1, 0.0), (-0.08, -0.09), success=False) == [0.0, 1.0]
