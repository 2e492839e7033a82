"""AvoidPoint as DPPO steps it, and how time to success is told."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch

from benchmarks import time_to_success
from benchmarks.speed_table import FineTuning, Point, SpeedTable, render_success
from benchmarks.time_to_success import CourseVenv, Judge, load_task, make_env, thin
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_base_agent

UP, RIGHT = (0.0, 1.0), (1.0, 0.0)


def make_policy() -> DiffusionPolicy:
    config = load_task()
    spec = make_env(config, 1).spec
    torch.manual_seed(0)
    settings = config.pretrain.policy.model_copy(update={"hidden_sizes": (8,)})
    return DiffusionPolicy(settings, spec.obs_dim, spec.action_dim).requires_grad_(False).eval()


def test_an_episode_that_ends_pays_and_starts_anew() -> None:
    """The first walker runs into a post, the second goes beside all of them."""
    policy = make_policy()
    venv = CourseVenv(load_task(), policy, 2)
    venv.seed([3])
    start = venv.reset_arg([])["state"]
    assert start.shape == (2, policy.config.n_obs_steps, policy.obs_dim)
    ended = []
    for decision in range(9):
        walk = np.array([UP, RIGHT if decision < 2 else UP], np.float32)
        obs, reward, terminated, truncated, _ = venv.step(np.repeat(walk[:, None], 8, axis=1))
        assert not truncated.any()
        ended += [(row, float(reward[row])) for row in np.flatnonzero(terminated)]
        for state in obs["state"][terminated]:
            assert np.abs(state[0, :2]).max() < 2.0  # back at the start
            assert not state[1].any()  # and nothing is known of before
        assert all(state[1].any() for state in obs["state"][~terminated])
    assert {reward for row, reward in ended if row == 0} == {0.0}
    assert sum(row == 0 for row, _ in ended) > 1
    assert [reward for row, reward in ended if row == 1] == [1.0]
    assert venv.control_steps < 2 * 8 * 9  # those after an end are not taken


def test_the_clock_stands_while_success_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=100)
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    monkeypatch.setattr(time_to_success, "measure_success", lambda *of: 0.001 * next(clock))
    judge = Judge(make_env(load_task(), 8), limit_s=150.0)
    agent = make_base_agent(make_policy())
    looks = [judge.look(agent, steps) for steps in (0, 100, 200)]
    assert looks == [False, False, True]  # the last one because its time is up
    found = [(point.iteration, point.control_steps, point.cpu_s, point.success) for point in judge.points]
    assert found == [(0, 0, 0.0, 0.0), (1, 100, 100.0, 0.3), (2, 200, 200.0, 0.6)]


def make_run(side: str, seed: int, cpu_s: float, success: float) -> FineTuning:
    start = Point(iteration=0, control_steps=0, cpu_s=0.0, success=0.5)
    end = Point(iteration=8, control_steps=200_000, cpu_s=cpu_s, success=success)
    return FineTuning(
        side=side, seed=seed, points=[start, end], parity="chunks", load=1.0, machine="a machine", commit="0123456"
    )


def test_who_was_stopped_has_taken_longer_than_is_known() -> None:
    table = SpeedTable(schema_version=1, rows=[], starts=[], memory=[], growth=[], success=[])
    for seed, ours in enumerate((20.0, 40.0)):
        table = table.with_run(make_run("ours", seed, ours, 0.96)).with_run(make_run("theirs", seed, 80.0, 0.7))
    table = table.with_run(make_run("ours", 1, 40.0, 0.97))
    text = render_success(table)
    assert (
        "| ours | 2 of 2 | 0.50 | 0.96 (0.96 to 0.97) | 30 (20 to 40) s | 200 | 8 | 150 ms | 1.0 (1.0 to 1.0) |" in text
    )
    assert "| theirs | 0 of 2 | 0.50 | 0.70 (0.70 to 0.70) | > 80 (80 to 80) s | 200 | 8 | 400 ms | > 3.0" in text
    assert "a machine; commit 0123456; equal before: chunks: 4 of 4 runs, load 1 to 1." in text


def test_a_curve_is_kept_from_its_start_to_its_end() -> None:
    points = [Point(iteration=i, control_steps=i, cpu_s=float(i), success=0.5) for i in range(57)]
    kept = thin(points)
    assert kept[0] is points[0]
    assert kept[-1] is points[-1]
    assert len(kept) == 11
