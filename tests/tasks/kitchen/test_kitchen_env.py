"""Kitchen in simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from bmd_pipeline.tasks.checker import check_task
from bmd_pipeline.tasks.kitchen import env as kitchen
from bmd_pipeline.tasks.kitchen.env import KitchenScene, KitchenTask, make_env
from bmd_pipeline.tasks.kitchen.expert import KitchenExpert
from bmd_pipeline.tasks.kitchen.options import Options

pytest.importorskip("mujoco", reason="needs the extra kitchen")
robotics = pytest.importorskip("gymnasium_robotics", reason="needs the extra kitchen")

NAMES = {"kettle": "kettle", "light": "light switch", "slide": "slide cabinet"}
"""FrankaKitchen's names of the things."""


@pytest.fixture(scope="module")
def stock() -> Any:
    """FrankaKitchen-v1 without the noise on its observations, which its arm is commanded from."""
    gymnasium.register_envs(robotics)
    settings = {"robot_noise_ratio": 0.0, "object_noise_ratio": 0.0, "terminate_on_tasks_completed": False}
    return gymnasium.make("FrankaKitchen-v1", tasks_to_complete=list(NAMES.values()), **settings).unwrapped


@pytest.fixture(scope="module")
def expert() -> Iterator[KitchenExpert]:
    expert = KitchenExpert(Options(horizon=160))
    yield expert
    expert.close()


def test_the_contract_is_kept() -> None:
    results = check_task("Kitchen", {"horizon": 160}, num_envs=2, expert_episodes=1)
    assert [result for result in results if not result.passed] == []


def test_direct_stepping_equals_env_step_bit_by_bit(stock: Any) -> None:
    scene, draw = KitchenScene(), np.random.default_rng(0)
    stock.reset(seed=0)
    assert np.array_equal(scene.data.qpos, stock.data.qpos)
    for _ in range(12):
        action = draw.uniform(-1.2, 1.2, 9)
        for _ in range(8):  # far enough to run into things
            stock.step(action)
            scene.move(action.tolist())
            assert np.array_equal(scene.data.qpos, stock.data.qpos)
            assert np.array_equal(scene.data.qvel, stock.data.qvel)


def test_things_are_done_when_franka_kitchen_says_so(stock: Any, expert: KitchenExpert) -> None:
    shown = expert.demonstrate(kitchen.ORDERS.index("kettle-slide"), seed=3)
    assert shown.success
    start = kitchen.make_start(
        torch.from_numpy(np.random.default_rng((3, 0, 0)).random(kitchen.KitchenTask.RANDOM_DIM)).float()[None]
    )
    task = KitchenTask(Options(), 1)
    torch.testing.assert_close(torch.from_numpy(shown.obs[:1]), task.reset(3))
    stock.reset(seed=0)
    qpos = stock.data.qpos.copy()
    qpos[:7], qpos[23:25] = start[0, :7], start[0, 7:]
    stock.robot_env.set_state(qpos, np.zeros_like(stock.data.qvel))
    stock.robot_env._last_robot_qpos = qpos[:9]
    rewards = []
    for action in shown.action:
        step = task.step(torch.from_numpy(action)[None])
        _, reward, _, _, info = stock.step(action.astype(np.float64))
        rewards.append(reward)
        assert float(step.reward) == reward
        done = {NAMES[thing] for thing, best in zip(kitchen.THINGS, task.best[0].tolist(), strict=True) if best > 1.0}
        assert done == set(info["episode_task_completions"])
    assert sum(rewards) >= 1.0  # played without the gusts, the episode may end otherwise; some of it was done


def test_every_thing_pays_once_and_the_second_ends_the_episode() -> None:
    task = KitchenTask(Options(), 1)
    task.reset(0)
    undone = task.state.clone()
    slide, light = undone.clone(), undone.clone()
    slide[:, -1] = 0.2
    light[:, -3] = -0.6
    assert [bool(flag) for flag in task._evaluate(undone, slide)] == [True, False, False]
    assert task._observe()[0, -3:].tolist() == [0.0, 0.0, 1.0]
    assert [bool(flag) for flag in task._evaluate(slide, undone)] == [False, False, False]  # shut again: still done
    assert [bool(flag) for flag in task._evaluate(undone, slide)] == [False, False, False]  # not paid again
    assert [bool(flag) for flag in task._evaluate(slide, light)] == [True, True, True]
    task.reset(0)
    assert task._observe()[0, -3:].tolist() == [0.0] * 3


def test_a_demonstration_records_what_was_meant_and_repeats_itself(expert: KitchenExpert) -> None:
    behaviour = kitchen.ORDERS.index("slide-light")
    shown, again = (expert.demonstrate(behaviour, seed=5) for _ in range(2))
    assert np.array_equal(shown.obs, again.obs)
    assert np.array_equal(shown.action, again.action)
    assert shown.success
    assert shown.obs[-1, -3:].tolist() == [0.0, 0.0, 1.0]  # the light is turned on in the last step
    assert set(np.unique(shown.action[:, 7:])) == {-1.0}


def test_seeds_and_rows_decide_the_episodes() -> None:
    def play(sizes: tuple[int, ...]) -> torch.Tensor:
        played, first_row = [], 0
        for num_envs in sizes:
            task = KitchenTask(Options(horizon=4), num_envs, first_row=first_row)
            task.reset(7)
            steps = [task.step(torch.full((num_envs, 9), 0.3)).obs for _ in range(6)]  # it ends after four
            played.append(torch.stack(steps))
            first_row += num_envs
        return torch.cat(played, dim=1)

    assert torch.equal(play((3,)), play((1, 2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_live_on_a_gpu_while_workers_step() -> None:
    env = make_env(Options(), 2, device="cuda", num_workers=1)
    assert env.reset(0).is_cuda
    assert env.step(torch.zeros(2, 9, device="cuda")).obs_path.is_cuda
    env.close()
