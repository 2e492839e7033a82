"""Simulated tasks: which scenes move, and what decides a start."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.sim.backend import SceneList
from bmd_pipeline.tasks.reach.env import ReachTask
from bmd_pipeline.tasks.reach.options import Options


class Counter:
    """A scene whose state is its start plus all actions, and how often it was moved."""

    def __init__(self) -> None:
        self.state = [0.0, 0.0]

    def place(self, start: Sequence[float]) -> None:
        self.state = [start[0], 0.0]

    def move(self, action: Sequence[float]) -> None:
        self.state = [self.state[0] + action[0], self.state[1] + 1.0]

    def read(self) -> Sequence[float]:
        return self.state


def test_only_active_scenes_move() -> None:
    scenes = SceneList([Counter() for _ in range(3)])
    placed = scenes.place(torch.tensor([[7.0], [0.0], [5.0]]))
    assert placed.tolist() == [[7.0, 0.0], [0.0, 0.0], [5.0, 0.0]]
    action = torch.tensor([[1.0], [2.0], [3.0]])
    moved = scenes.move(action, torch.tensor([True, False, True]))
    assert moved.tolist() == [[8.0, 1.0], [0.0, 0.0], [8.0, 1.0]]
    again = scenes.move(action, torch.tensor([True, True, False]))
    assert again.tolist() == [[9.0, 2.0], [2.0, 1.0], [8.0, 1.0]]
    assert moved.tolist() == [[8.0, 1.0], [0.0, 0.0], [8.0, 1.0]]  # a tensor of its own
    assert placed.tolist() == [[7.0, 0.0], [0.0, 0.0], [5.0, 0.0]]


@given(start=st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2))
def test_states_are_rounded_as_tensors_are(start: list[float]) -> None:
    scenes = SceneList([Counter(), Counter()])
    for scene, value in zip(scenes.scenes, start, strict=True):
        scene.place([value])
    moved = scenes.move(torch.zeros(2, 1), torch.tensor([True, True]))
    assert torch.equal(moved, torch.tensor([[value, 1.0] for value in start]))


def test_starts_depend_on_seed_and_row_alone() -> None:
    def starts(first_row: int, seed: int) -> torch.Tensor:
        task = ReachTask(Options(horizon=1), 1, first_row=first_row)
        task.reset(seed)
        return task.state[0]

    reference = starts(2, 5)
    assert torch.equal(starts(2, 5), reference)
    for other in ((1, 5), (2, 4)):
        assert not torch.equal(starts(*other), reference)


def test_tasks_travel_to_workers() -> None:
    ForkingPickler.dumps(functools.partial(ReachTask, Options()))


def test_what_an_environment_of_maniskill_leaves_out_is_missed() -> None:
    maniskill = importlib.import_module("bmd_pipeline.sim.maniskill")
    with pytest.raises(NotImplementedError):
        maniskill.StartedEnv.read_state(object())
