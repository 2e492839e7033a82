"""Avoid in simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bmd_pipeline.tasks.avoid.env import (
    BODY_RADIUS,
    REST_QPOS,
    TIP_HEIGHT,
    TIP_SPEED,
    AvoidTask,
    make_env,
    make_start,
)
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid_point.course import ROWS, START, Course
from bmd_pipeline.tasks.checker import check_task
from tests.tasks.stepping import largest_gap, make_stock, single_step_gaps

TOWARDS_POST = np.array([-0.14, 0.9])


@pytest.fixture(scope="module")
def task() -> Iterator[AvoidTask]:
    task = AvoidTask(Options(), 1)
    yield task
    task.close()


@pytest.fixture(scope="module")
def stock() -> Any:
    return make_stock("Avoid")


def test_the_contract_is_kept_and_all_24_ways_are_shown() -> None:
    # gusts half as strong as in collection, so that one try is enough
    results = check_task("Avoid", {"expert_noise": 0.2, "horizon": 150}, num_envs=2, expert_episodes=1)
    assert [result for result in results if not result.passed] == []


def test_direct_stepping_equals_env_step_in_free_motion(task: AvoidTask, stock: Any) -> None:
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1.0, 1.0, (100, 2)) * [1.0, 0.3]
    assert largest_gap(stock, task, actions) <= 1e-4  # rad


def test_direct_stepping_equals_env_step_in_single_steps_at_a_post(task: AvoidTask, stock: Any) -> None:
    task.reset(0)
    (scene,) = task.simulation.scenes
    row = ROWS[0]

    def push() -> Iterator[np.ndarray]:
        for _ in range(40):
            gap = np.array([row.posts[0], row.y]) - scene.read()
            yield gap / np.abs(gap).max()

    gaps = single_step_gaps(stock, scene, push())
    x, y = scene.read()
    assert np.hypot(x - row.posts[0], y - row.y) < row.radius + BODY_RADIUS  # it really pushes against the post
    assert np.median(gaps) <= 1e-5
    assert gaps.max() <= 1e-3


def test_starts_spread_about_the_start_of_the_course(task: AvoidTask) -> None:
    places = []
    for seed in range(12):
        task.reset(seed)
        places.append(task.state[0].clone())
    offset = torch.stack(places) - torch.tensor(START)
    assert offset.abs().max() < 0.03
    assert offset.std(0).min() > 0.003


def test_height_and_orientation_are_held_on_the_way(task: AvoidTask) -> None:
    task.reset(1)
    (scene,) = task.simulation.scenes
    before = task.state[0].clone()
    for _ in range(12):
        task.step(torch.tensor([[0.9, -0.3]]))
    shift = task.state[0] - before
    assert abs(float(scene.arm.pose.p[2]) - TIP_HEIGHT) < 0.005
    assert abs(float(scene.arm.pose.q[1])) > 0.995
    assert float(shift[0]) == pytest.approx(12 * 0.9 * TIP_SPEED, rel=0.25)  # less what the arm lags behind


def test_touching_a_post_fails(task: AvoidTask) -> None:
    task.reset(0)
    moved = task.step_chunk(torch.from_numpy(TOWARDS_POST).float().expand(1, 60, 2))
    assert bool(moved.terminated)
    assert not bool(moved.success | moved.truncated)
    assert bool(Course().is_blocked(task.state, BODY_RADIUS).all())
    assert int(moved.steps) < 30


def test_the_registered_environment_says_the_same(task: AvoidTask, stock: Any) -> None:
    assert stock.single_action_space.shape == (2,)
    obs, _ = stock.reset(seed=5)
    again, _ = stock.reset(seed=5)
    torch.testing.assert_close(obs, again)
    stock.reset(options={"start": torch.tensor([REST_QPOS])})
    torch.testing.assert_close(stock.read_state()[0], torch.tensor(START), atol=1e-3, rtol=0)
    rewards = []
    for _ in range(60):
        _, reward, terminated, _, info = stock.step(TOWARDS_POST.astype(np.float32))
        rewards.append(float(reward))
        if bool(terminated):
            break
    assert bool(info["fail"])
    assert not bool(info["success"])
    assert 0.0 <= rewards[0] < rewards[-1] < 1.0  # progress along the course


def test_starts_are_made_in_batches() -> None:
    random = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    starts = make_start(random)
    assert starts.shape == (5, 7)
    torch.testing.assert_close(starts[2:3], make_start(random[2:3]))
    torch.testing.assert_close(make_start(torch.full((1, 7), 0.5)), torch.tensor([REST_QPOS]))


def test_the_batched_interface_means_the_same(task: AvoidTask) -> None:
    batched = AvoidTask(Options(), 1, batched=True)
    for seed in (0, 1):  # the second time, a reset of a scene in use
        torch.testing.assert_close(batched.reset(seed), task.reset(seed), atol=1e-4, rtol=0)
        for _ in range(8):
            action = torch.tensor([[0.5, -0.6]])
            ours, theirs = batched.step(action), task.step(action)
            torch.testing.assert_close(ours.track_path, theirs.track_path, atol=1e-4, rtol=0)
            torch.testing.assert_close(ours.reward, theirs.reward)
    batched.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_and_resets_on_a_gpu() -> None:
    env = make_env(Options(horizon=8), 16, device="cuda", num_workers=1)
    obs = env.reset(0)
    assert obs.shape == (16, env.spec.obs_dim)
    torch.testing.assert_close(env.reset(0), obs, atol=1e-4, rtol=0)
    for _ in range(2):
        step = env.step_chunk(torch.rand(16, 4, 2, device="cuda") * 2.0 - 1.0)
        assert torch.isfinite(step.obs_path).all()
    env.close()
