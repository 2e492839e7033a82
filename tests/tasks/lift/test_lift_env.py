"""Lift in simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bmd_pipeline.tasks.checker import check_task
from bmd_pipeline.tasks.lift.env import HALF_HEIGHT, LiftTask, compute_lift, make_env, make_spec
from bmd_pipeline.tasks.lift.expert import LiftExpert, make_expert
from bmd_pipeline.tasks.lift.options import Options
from tests.tasks.stepping import largest_gap, make_stock, single_step_gaps


@pytest.fixture(scope="module")
def expert() -> Iterator[LiftExpert]:
    expert = make_expert(Options())
    yield expert
    expert.close()


@pytest.fixture
def task(expert: LiftExpert) -> Iterator[LiftTask]:
    """The expert's scene under settings that a test may replace."""
    yield expert._env
    expert._env.options, expert._env.spec = Options(), make_spec(Options())


@pytest.fixture(scope="module")
def stock() -> Any:
    return make_stock("Lift")


def test_the_contract_is_kept() -> None:
    results = check_task("Lift", {"horizon": 80}, num_envs=2)
    assert [result for result in results if not result.passed] == []
    assert any("success 1.00 over 2 behaviours" in result.detail for result in results)


def test_direct_stepping_equals_env_step_in_free_motion(task: LiftTask, stock: Any) -> None:
    generator = np.random.default_rng(0)
    actions = generator.uniform(-0.2, 0.2, (100, 7))
    actions[:, 2] += 0.1  # away from the bar
    actions[:, 6] *= 5.0  # the gripper too
    assert largest_gap(stock, task, actions) <= 1e-4  # rad


def test_direct_stepping_equals_env_step_in_single_steps_while_grasping(
    expert: LiftExpert, task: LiftTask, stock: Any
) -> None:
    shown = expert.demonstrate(1, seed=4)
    task.reset(4)
    (scene,) = task.simulation.scenes
    gaps = single_step_gaps(stock, scene, shown.action)
    assert scene.read()[18] > HALF_HEIGHT + 0.03  # the bar was really lifted
    assert np.median(gaps) <= 1e-5
    assert np.mean(gaps) <= 1e-3


@pytest.mark.parametrize(("behaviour", "pay"), [(0, 2.0), (1, 0.5)])
def test_either_end_lifts_the_bar_and_pays_what_it_should(
    expert: LiftExpert, task: LiftTask, behaviour: int, pay: float
) -> None:
    task.options = Options(end_weights=(2.0, 0.5), progress_scale=0.0)
    judge, rewards = task._evaluate, []

    def recorded(before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, ...]:
        judged = judge(before, after)
        rewards.append(float(judged[0]))
        return judged

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "_evaluate", recorded)
        episode = expert.demonstrate(behaviour, seed=7)
    assert episode.success
    assert rewards[-1] == pay
    assert not any(rewards[:-1])
    assert float(compute_lift(task.state)) >= task.options.lift_height


def test_the_thick_middle_can_t_be_grasped(task: LiftTask) -> None:
    task.reset(0)
    bar = task.state[0, 16:19].tolist()
    for height, grip in ((0.06, 1.0), (HALF_HEIGHT + 0.02, 1.0), (HALF_HEIGHT + 0.02, -1.0), (0.25, -1.0)):
        for _ in range(20):
            gap = torch.tensor([bar[0], bar[1], height]) - task.state[0, 9:12]
            shift = (0.6 * gap / 0.0393).clamp(-0.5, 0.5)
            task.step(torch.tensor([[*shift.tolist(), 0.0, 0.0, 0.0, grip]]))
    assert float(task.state[0, 11]) > 0.2  # the hand went up again
    assert float(compute_lift(task.state)) < 0.03


def test_bars_start_at_rest_on_the_table(task: LiftTask) -> None:
    for seed in range(3):
        task.reset(seed)
        before = task.state[0, 16:].clone()
        task.step_chunk(torch.zeros(1, 10, 7))
        torch.testing.assert_close(task.state[0, 16:], before, atol=2e-4, rtol=0)


def test_the_registered_environment_says_the_same(task: LiftTask, stock: Any) -> None:
    assert stock.single_action_space.shape == (7,)
    obs, _ = stock.reset(seed=5)
    again, _ = stock.reset(seed=5)
    torch.testing.assert_close(obs, again)
    assert abs(float(stock.read_state()[0, 18]) - HALF_HEIGHT) < 1e-4
    _, reward, terminated, _, info = stock.step(np.zeros(7, np.float32))
    assert 0.0 <= float(reward) < 0.3
    assert not bool(terminated)
    pose = stock.bar.pose.raw_pose.clone()
    pose[:, 2] = 0.2
    stock.bar.set_pose(stock.bar.pose.create(pose))
    info = stock.evaluate()
    assert bool(info["success"])
    torch.testing.assert_close(stock.compute_dense_reward(None, None, info), torch.ones(1))


def test_the_batched_interface_means_the_same(task: LiftTask) -> None:
    batched = LiftTask(Options(), 1, batched=True)
    for seed in (0, 1):  # the second time, a reset of a scene in use
        torch.testing.assert_close(batched.reset(seed), task.reset(seed), atol=1e-4, rtol=0)
        for _ in range(8):
            action = torch.tensor([[-0.2, 0.3, 0.1, 0.3, 0.0, -0.2, -0.5]])
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
        step = env.step_chunk(torch.rand(16, 4, 7, device="cuda") * 2.0 - 1.0)
        assert torch.isfinite(step.obs_path).all()
    env.close()
