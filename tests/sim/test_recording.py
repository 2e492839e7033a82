"""Recording changes nothing of an episode, and keeps each of its control steps once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.render import EpisodeRecorder, find_task
from tests.tasks.toy import Walk


class WalkFilming:
    """Arrangements of the toy are its positions."""

    def arrange(self, task: VectorTask) -> float:
        assert isinstance(task, Walk)
        return float(task.x[0])

    def locate(self, task: VectorTask) -> tuple[float, float, float]:
        return self.arrange(task), 0.0, 0.0


def play(task: Walk, steps: int, chunk: int) -> list[Any]:
    obs = [task.reset(3)]
    for _ in range(steps // chunk):
        moved = task.step_chunk(torch.full((1, chunk, 1), 0.75))
        obs += [moved.obs, moved.obs_path, moved.reward]
    return obs


def make_recorder(task: Walk) -> EpisodeRecorder:
    return EpisodeRecorder(task, WalkFilming())  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_keeps_every_step_up_to_the_end_once(chunk: int) -> None:
    task = Walk(1)
    recorder = make_recorder(task)
    play(task, 8, chunk)  # it ends after 4 steps and stays frozen
    recording = recorder.recording
    start = recording.arrangements[0]
    assert recording.length == 4
    assert recording.arrangements == pytest.approx([start + 0.75 * step for step in range(5)])
    assert [place[0] for place in recording.places] == recording.arrangements
    assert recording.track.shape == (5, 1, 2)
    assert recording.track[:, 0, 0].tolist() == recording.arrangements


def test_an_episode_is_the_same_with_and_without() -> None:
    plain, recorded = Walk(1), Walk(1)
    make_recorder(recorded)
    for one, other in zip(play(plain, 6, 2), play(recorded, 6, 2), strict=True):
        assert torch.equal(one, other)


def test_a_new_episode_is_a_new_recording() -> None:
    task = Walk(1)
    recorder = make_recorder(task)
    play(task, 4, 1)
    first = recorder.recording
    task.reset(5)
    assert recorder.recording.length == 0
    assert first.length == 4


def test_refuses_what_has_no_single_episode() -> None:
    with pytest.raises(TaskError, match="Toy: episodes of one environment can be recorded, not of 2"):
        make_recorder(Walk(2))


def test_finds_the_task_of_an_expert() -> None:
    task = Walk(1)
    assert find_task(SimpleNamespace(_pace=1.0, _env=task)) is task  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="holds no task of its own"):
        find_task(SimpleNamespace(_pace=1.0))  # type: ignore[arg-type]
