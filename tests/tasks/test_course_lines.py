"""Lines through the course."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bmd_pipeline.tasks.avoid_point.course import FINISH_Y, MODE_GAPS, MODES, SPACING, START, Course, draw_line


@pytest.mark.parametrize("gaps", MODE_GAPS, ids=MODES)
def test_lines_in_a_robot_s_reach_lead_freely_through_the_wanted_gaps(gaps: tuple[int, ...]) -> None:
    course = Course()
    for seed in range(5):
        line = draw_line(gaps, START, np.random.default_rng(seed), reach=0.75)
        path = torch.tensor(np.stack([line.x, line.y], axis=1)).float()
        assert np.hypot(line.x, line.y).max() <= 0.75 + SPACING
        assert not bool(course.is_blocked(path, 0.01).any())
        assert float(path[-1, 1]) > FINISH_Y
        assert tuple(course.trace(path[:, None])[0].tolist()) == gaps


def test_following_leads_ahead_and_back_to_the_line() -> None:
    line = draw_line((0, 1, 1), START, np.random.default_rng(0))
    dx, dy = line.follow(*START)
    assert max(abs(dx), abs(dy)) == pytest.approx(1.0)
    assert dy > 0
    x, y = float(line.x[100]), float(line.y[100])
    assert line.follow(x - 0.05, y)[0] > 0.5  # from the left, to the right
    assert line.follow(x + 0.05, y)[0] < -0.5
