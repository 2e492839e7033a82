"""Reach in simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bmd_pipeline.sim.arm import ROTATION_SCALE, approach, point_down
from bmd_pipeline.tasks.checker import check_task
from bmd_pipeline.tasks.reach.env import LANE, POST, POST_HALF_SIZE, ReachTask, has_hit, make_env, make_spec
from bmd_pipeline.tasks.reach.options import Options
from tests.tasks.stepping import largest_gap, make_stock, single_step_gaps


@pytest.fixture(scope="module")
def scenes() -> Iterator[ReachTask]:
    task = ReachTask(Options(), 1)
    yield task
    task.close()


@pytest.fixture
def task(scenes: ReachTask) -> Iterator[ReachTask]:
    """The module's scene under settings that a test may replace."""
    yield scenes
    scenes.options, scenes.spec = Options(), make_spec(Options())


@pytest.fixture(scope="module")
def stock() -> Any:
    return make_stock("Reach")


def _go(task: ReachTask, *points: tuple[float, float, float], steps: int = 20) -> list[torch.Tensor]:
    """Visits points and then the goal; returns the rewards (1,)."""
    rewards = []
    for point in (*points, None):
        for _ in range(steps):
            target = task.state[0, 14:17].numpy() if point is None else np.array(point)
            action = approach(task.state[0, 7:14].tolist(), target, point_down(0.0), speed=0.6)
            rewards.append(task.step(torch.from_numpy(action).float()[None]).reward[0])
    return rewards


def _round_the_post(side: float) -> tuple[tuple[float, float, float], ...]:
    return (POST[0] - 0.1, side * LANE, 0.17), (POST[0] + 0.1, side * LANE, 0.17)


def test_the_contract_is_kept() -> None:
    results = check_task("Reach", {}, num_envs=2)
    assert [result for result in results if not result.passed] == []


def test_direct_stepping_equals_env_step_in_free_motion(task: ReachTask, stock: Any) -> None:
    generator = np.random.default_rng(1)
    actions = generator.uniform(-0.2, 0.2, (100, 6))
    assert largest_gap(stock, task, actions) <= 1e-4  # rad


def test_direct_stepping_equals_env_step_in_single_steps_at_the_post(task: ReachTask, stock: Any) -> None:
    task.reset(0)
    (scene,) = task.simulation.scenes
    gaps = single_step_gaps(stock, scene, [np.array([0.4, 0.0, 0.0, 0.0, 0.0, 0.0])] * 40)
    assert has_hit(torch.tensor([scene.read()])).all()  # stopped by the post
    assert scene.read()[7] < POST[0] - POST_HALF_SIZE[0]
    assert np.median(gaps) <= 1e-5
    assert gaps.max() <= 1e-3


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_both_sides_lead_to_the_goal_and_pay_what_they_should(task: ReachTask, side: float) -> None:
    task.options = Options(side_weights=(2.0, 0.5), progress_scale=0.0)
    task.reset(1)
    rewards = _go(task, *_round_the_post(side))
    assert bool(task.ended[0])
    assert float(sum(rewards)) == (2.0 if side > 0 else 0.5)


def test_the_side_is_that_of_the_first_passing(task: ReachTask) -> None:
    task.options = Options(side_weights=(2.0, 0.5), progress_scale=0.0)
    task.reset(2)
    state = task.state.clone()
    for place in ((POST[0] + 0.01, LANE), (0.1, -LANE), (POST[0] - 0.1, -LANE), (POST[0] + 0.1, -LANE)):
        state[:, 7:9] = torch.tensor(place)
        reward, terminated, _ = task._evaluate(state, state)
        assert not bool(reward.any() | terminated.any())
    state[:, 7:10] = state[:, 14:17]
    reward, terminated, success = task._evaluate(state, state)
    assert bool(terminated & success)
    assert float(reward) == 2.0


def test_touching_the_post_fails(task: ReachTask) -> None:
    task.reset(0)
    moved = task.step_chunk(torch.tensor([0.4, 0.0, 0.0, 0.0, 0.0, 0.0]).expand(1, 20, 6))
    assert bool(moved.terminated)
    assert not bool(moved.success | moved.truncated)


def test_progress_adds_up_to_about_one(task: ReachTask) -> None:
    task.options = Options(side_weights=(0.0, 0.0))
    task.reset(3)
    total = float(sum(_go(task, *_round_the_post(-1.0))))
    assert 0.8 < total < 1.3


def test_the_gripper_stays_shut(task: ReachTask) -> None:
    task.reset(0)
    _go(task, *_round_the_post(1.0))
    (scene,) = task.simulation.scenes
    assert np.abs(scene.arm.qpos[7:]).max() < 1e-3
    assert scene.arm.rotation_scale == ROTATION_SCALE


def test_seeds_and_rows_decide_the_episodes() -> None:
    def play(sizes: tuple[int, ...]) -> torch.Tensor:
        played, first_row = [], 0
        for num_envs in sizes:
            task = ReachTask(Options(horizon=6), num_envs, first_row=first_row)
            task.reset(7)
            steps = [task.step(torch.full((num_envs, 6), 0.2)).obs for _ in range(9)]  # it ends after six
            played.append(torch.stack(steps))
            first_row += num_envs
        return torch.cat(played, dim=1)

    assert torch.equal(play((3,)), play((1, 2)))


def test_the_registered_environment_says_the_same(stock: Any) -> None:
    assert stock.single_action_space.shape == (6,)
    obs, _ = stock.reset(seed=5)
    again, _ = stock.reset(seed=5)
    torch.testing.assert_close(obs, again)
    _, reward, terminated, _, info = stock.step(np.zeros(6, np.float32))
    assert 0.0 <= float(reward) < 0.3
    assert not bool(terminated)
    state = stock.read_state()
    start = torch.cat((state[:, :7], torch.zeros(1, 2), state[:, 7:10]), 1)  # the goal where the fingertips are
    stock.reset(options={"start": start})
    _, reward, terminated, _, info = stock.step(np.zeros(6, np.float32))
    assert bool(terminated & info["success"])
    assert float(reward) == 1.0
    stock.reset(seed=5)
    ends = [stock.step(np.array([0.4, 0.0, 0.0, 0.0, 0.0, 0.0], np.float32)) for _ in range(12)]
    assert any(bool(terminated & info["fail"]) for _, _, terminated, _, info in ends)
    assert not any(bool(info["success"]) for *_, info in ends)


def test_the_batched_interface_means_the_same(task: ReachTask) -> None:
    batched = ReachTask(Options(), 1, batched=True)
    for seed in (0, 1):  # the second time, a reset of a scene in use
        torch.testing.assert_close(batched.reset(seed), task.reset(seed), atol=1e-4, rtol=0)
        for _ in range(8):
            action = torch.tensor([[-0.2, 0.5, 0.1, 0.3, 0.0, -0.2]])
            ours, theirs = batched.step(action), task.step(action)
            torch.testing.assert_close(ours.obs, theirs.obs, atol=1e-3, rtol=0)
            torch.testing.assert_close(ours.reward, theirs.reward, atol=1e-3, rtol=0)
    batched.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_and_resets_on_a_gpu() -> None:
    env = make_env(Options(horizon=8), 16, device="cuda", num_workers=1)
    obs = env.reset(0)
    torch.testing.assert_close(env.reset(0), obs, atol=1e-4, rtol=0)
    for _ in range(2):
        step = env.step_chunk(torch.rand(16, 4, 6, device="cuda") * 2.0 - 1.0)
        assert torch.isfinite(step.obs_path).all()
    env.close()
