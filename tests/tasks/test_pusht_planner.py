"""Planning with a made-up push library."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.tasks.pusht.env import GOAL
from bmd_pipeline.tasks.pusht.expert import Planner, PushLibrary, compose

TIP = np.array([-0.1, 0.1])


def _library() -> PushLibrary:
    """Four contacts that move the T straight ahead by the travel, and two that turn it by 10 rad per metre."""
    travel = np.linspace(0.0, 0.16, 33)
    angle = np.array([0.0, np.pi / 2, np.pi, -np.pi / 2, np.pi / 2, np.pi / 2])
    start = np.array([[-0.06, 0.1], [0.0, -0.09], [0.06, 0.1], [0.0, 0.16], [0.08, -0.09], [-0.08, -0.09]])
    motion = np.zeros((6, len(travel), 3))
    for contact in range(4):
        motion[contact, :, 0] = np.cos(angle[contact]) * travel
        motion[contact, :, 1] = np.sin(angle[contact]) * travel
    motion[4, :, 2], motion[5, :, 2] = 10.0 * travel, -10.0 * travel
    return PushLibrary(start, angle, np.array([5, 0, 3, 4, 0, 0]), travel, motion)


def test_one_push_suffices_where_one_push_does() -> None:
    pose = compose(GOAL, np.array([-0.06, 0.0, 0.0]))
    push = Planner(_library()).plan(pose, TIP, GOAL)
    assert push is not None
    np.testing.assert_allclose(compose(pose, push.motion), GOAL, atol=0.003)
    assert push.travel == pytest.approx(0.06)


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_combined_pushes_reach_the_goal_in_the_wanted_winding(turn: float) -> None:
    planner = Planner(_library())
    pose, tip = compose(GOAL, np.array([0.05, 0.03, 1.0])), TIP
    goal = GOAL + np.array([0.0, 0.0, 2.0 * np.pi * (turn > 0)])
    start = pose
    for _ in range(12):
        if np.abs(pose - goal).max() < 0.06:
            break
        push = planner.plan(pose, tip, goal)
        assert push is not None
        pose = compose(pose, push.motion)
        tip = compose(pose, np.array([*push.start, 0.0]))[:2]
    assert np.abs(pose - goal).max() < 0.06
    assert np.sign(pose[2] - start[2]) == turn


def test_the_first_push_keeps_to_the_allowed_faces() -> None:
    push = Planner(_library()).plan(compose(GOAL, np.array([-0.06, 0.0, 0.0])), TIP, GOAL, faces=(4,))
    assert push is not None
    np.testing.assert_allclose(push.start, [0.0, 0.16])


def test_nothing_within_reach_is_no_plan() -> None:
    assert Planner(_library()).plan(np.array([3.0, 3.0, 0.0]), TIP, GOAL) is None
