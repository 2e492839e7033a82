"""Walking round the T."""

from __future__ import annotations

import numpy as np

from bmd_pipeline.tasks.pusht.expert import MIN_REACH, Walkway, distance_to_tee, list_contacts

FAR = np.array([-2.0, 0.0])


def _walk(tip: np.ndarray, goal: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Points visited on the way, in the T's frame."""
    walkway, points = Walkway(), [tip]
    for _ in range(80):
        if np.linalg.norm(points[-1] - goal) < 0.005:
            break
        gap = walkway.next_waypoint(points[-1], goal, base) - points[-1]
        points.append(points[-1] + gap * min(1.0, 0.02 / float(np.linalg.norm(gap))))
    return np.array(points)


def test_gets_everywhere_without_touching_the_tee() -> None:
    start, _, _ = list_contacts()
    generator = np.random.default_rng(0)
    for _ in range(60):
        tip, goal = start[generator.choice(len(start), 2, replace=False)]
        path = _walk(tip, goal, FAR)
        assert np.linalg.norm(path[-1] - goal) < 0.005
        assert distance_to_tee(path).min() > 0.011


def test_takes_the_shorter_way_round() -> None:
    path = _walk(np.array([-0.05, 0.1]), np.array([0.05, 0.1]), FAR)
    assert path[:, 1].min() > 0.05  # over the stem's end, not round the bar
    assert path[:, 1].max() > 0.15


def test_keeps_out_of_the_disc_round_the_arms_base() -> None:
    base = np.array([0.0, 0.4])  # the stem's end lies within the disc: the way leads round the bar
    tip, goal = np.array([-0.06, 0.03]), np.array([0.06, 0.03])
    path = _walk(tip, goal, base)
    assert np.linalg.norm(path[-1] - goal) < 0.005
    assert np.linalg.norm(path - base, axis=1).min() > MIN_REACH - 0.01
    assert path[:, 1].min() < -0.07


def test_steps_back_when_it_stands_too_close() -> None:
    tip = np.array([0.033, 0.1])  # 8 mm from the stem
    waypoint = Walkway().next_waypoint(tip, np.array([-0.06, 0.1]), FAR)
    assert distance_to_tee(waypoint) > distance_to_tee(tip)
