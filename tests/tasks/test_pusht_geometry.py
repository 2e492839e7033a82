"""The T and motions of the plane."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.tasks.pusht.env import BEHAVIOURS, CORNERS, GOAL, SIDE_FACES
from bmd_pipeline.tasks.pusht.expert import (
    LinePush,
    compose,
    distance_to_tee,
    list_contacts,
    pose_distance,
    rotation,
)


def test_the_origin_is_the_centre_of_mass() -> None:
    bar, stem = np.array([0.0, -0.0375]), np.array([0.0, 0.0625])
    np.testing.assert_allclose(0.01 * bar + 0.0075 * stem, [0.0, 0.000094], atol=1e-4)
    assert np.ptp(CORNERS[:, 0]) == pytest.approx(0.2)
    assert np.ptp(CORNERS[:, 1]) == pytest.approx(0.2)


def test_distances_to_the_tee() -> None:
    points = np.array([[0.0, 0.0], [0.0, 0.2375], [0.2, -0.0375], [0.05, 0.0375], [-0.13, 0.0275]])
    np.testing.assert_allclose(distance_to_tee(points), [0.0, 0.1, 0.1, 0.025, 0.05], atol=1e-12)


def test_compose_moves_in_the_poses_own_frame() -> None:
    moved = compose(np.array([1.0, 2.0, np.pi / 2]), np.array([0.1, 0.2, 0.5]))
    np.testing.assert_allclose(moved, [0.8, 2.1, np.pi / 2 + 0.5])
    np.testing.assert_allclose(rotation(np.pi / 2) @ [1.0, 0.0], [0.0, 1.0], atol=1e-12)


def test_distances_of_poses_count_whole_turns() -> None:
    assert pose_distance(np.add(GOAL, [0.03, 0.04, 0.0]), GOAL) == pytest.approx(0.05)
    assert pose_distance(np.add(GOAL, [0.0, 0.0, 2 * np.pi]), GOAL) == pytest.approx(0.075 * 2 * np.pi)


def test_pushes_start_clear_of_the_tee_and_head_for_their_face() -> None:
    start, angle, face = list_contacts()
    assert len(start) > 100
    assert distance_to_tee(start).min() >= 0.012
    ahead = start + 0.025 * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert distance_to_tee(ahead).max() < 0.008  # the stick's radius: it touches
    right = np.isin(face, SIDE_FACES["right"])
    assert (start[right, 0] > 0).all()
    assert (start[np.isin(face, SIDE_FACES["left"]), 0] < 0).all()
    assert BEHAVIOURS == (
        "clockwise-left",
        "clockwise-right",
        "counterclockwise-left",
        "counterclockwise-right",
    )


def test_a_stalled_push_pushes_harder_and_returns_to_its_line() -> None:
    push = LinePush(np.zeros(2), np.array([1.0, 0.0]))
    first = push.action(np.array([0.0, 0.01]), 0.01)
    assert first[1] < 0  # back to the line
    stalled = push.action(np.array([0.0, 0.01]), 0.01)
    assert stalled[0] == pytest.approx(1.35 * first[0])
    moving = push.action(np.array([0.01, 0.0]), 0.01)
    assert moving[0] < stalled[0]
