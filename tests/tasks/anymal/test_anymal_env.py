"""Anymal in simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bmd_pipeline.tasks.anymal.env import DIRECTIONS, REST_QPOS, AnymalTask, compute_heading, make_spec
from bmd_pipeline.tasks.anymal.expert import load_gaits, move_feet
from bmd_pipeline.tasks.anymal.options import Options
from bmd_pipeline.tasks.checker import check_task
from tests.tasks.anymal.extra import needs_wheel
from tests.tasks.stepping import largest_gap, make_stock, single_step_gaps

pytestmark = needs_wheel


@pytest.fixture(scope="module")
def scenes() -> Iterator[AnymalTask]:
    task = AnymalTask(Options(), 1)
    yield task
    task.close()


@pytest.fixture
def task(scenes: AnymalTask) -> Iterator[AnymalTask]:
    """The module's scene under settings that a test may replace."""
    yield scenes
    scenes.options, scenes.spec = Options(), make_spec(Options())


@pytest.fixture(scope="module")
def stock() -> Any:
    return make_stock("Anymal")


def _trot(task: AnymalTask, direction: str) -> np.ndarray:
    """Action (12,) of the expert's gait."""
    joints = task.state[0, :12].numpy().astype(np.float64)
    gait = load_gaits()[DIRECTIONS.index(direction)]
    return gait.act(int(task.elapsed[0]), joints, -float(compute_heading(task.state)))


def _walk(task: AnymalTask, direction: str) -> list[torch.Tensor]:
    """Walks until the episode ends; returns the rewards (1,)."""
    rewards = []
    while not bool(task.ended[0]):
        rewards.append(task.step(torch.from_numpy(_trot(task, direction)).float()[None]).reward[0])
    return rewards


def test_the_contract_is_kept() -> None:
    results = check_task("Anymal", {}, num_envs=2, expert_episodes=2)
    assert [result for result in results if not result.passed] == []


def test_direct_stepping_equals_env_step_in_free_motion(task: AnymalTask, stock: Any) -> None:
    """In the air, where nothing is touched."""
    sapien_pose = type(task.simulation.scenes[0].env.agent.robot._objs[0].root_pose)

    def lift(env: Any) -> None:
        env.agent.robot._objs[0].set_root_pose(sapien_pose([0.0, 0.0, 500.0]))

    actions = np.random.default_rng(1).uniform(-1.0, 1.0, (100, 12))
    assert largest_gap(stock, task, actions, prepare=lift) <= 1e-6  # rad
    assert float(stock.agent.robot.pose.p[0, 2]) > 100.0


def test_direct_stepping_equals_env_step_in_single_steps_on_the_ground(task: AnymalTask, stock: Any) -> None:
    task.reset(0)
    (scene,) = task.simulation.scenes

    def actions() -> Iterator[np.ndarray]:
        for step in range(40):
            task.elapsed[:] = step
            task.state = torch.tensor([scene.read()])
            yield _trot(task, "forward")

    gaps = single_step_gaps(stock, scene, actions())
    assert gaps.max() <= 1e-6


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_direction_leads_to_its_beacon_and_pays_what_it_should(task: AnymalTask, direction: str) -> None:
    weights = (2.0, 0.5, 4.0, 3.0)
    task.options = Options(direction_weights=weights, progress_scale=0.0)
    task.reset(1)
    assert float(sum(_walk(task, direction))) == weights[DIRECTIONS.index(direction)]


def test_progress_adds_up_to_the_way_to_the_beacon(task: AnymalTask) -> None:
    task.options = Options(direction_weights=(0.0,) * 4, goal_radius=0.3)
    task.reset(3)
    total = float(sum(_walk(task, "back")))
    assert 0.65 < total < 0.75  # 0.3 m of 0.9 to 1.1 m are left


def test_idling_gives_way_and_falling_fails(task: AnymalTask) -> None:
    """Increments count from where the joints are, so that zero doesn't hold the robot up."""
    task.reset(0)
    moved = task.step_chunk(torch.zeros(1, 60, 12))
    assert bool(moved.terminated)
    assert not bool(moved.success | moved.truncated)
    assert float(task.state[0, 26]) < 0.3


def test_feet_go_where_the_gait_wants_them(task: AnymalTask) -> None:
    (scene,) = task.simulation.scenes
    robot = scene.env.agent.robot._objs[0]
    feet = [
        next(link.entity for link in robot.links if link.entity.name.endswith(f"{leg}_FOOT"))
        for leg in ("LF", "RF", "LH", "RH")
    ]

    def locate(joints: np.ndarray) -> np.ndarray:
        pose = type(robot.root_pose)
        robot.set_root_pose(pose([0.0, 0.0, 1.0]))
        robot.set_qpos(joints)
        return np.array([(foot.pose * pose([0.0, 0.0, 0.0225])).p for foot in feet])

    zero = np.zeros(4)
    rest = locate(move_feet(zero, zero, zero))
    moved = locate(move_feet(np.full(4, 0.02), np.full(4, -0.01), np.full(4, 0.015)))
    np.testing.assert_allclose(moved - rest, np.tile([0.02, -0.01, 0.015], (4, 1)), atol=0.003)


def test_seeds_and_rows_decide_the_episodes() -> None:
    def play(sizes: tuple[int, ...]) -> torch.Tensor:
        played, first_row = [], 0
        for num_envs in sizes:
            task = AnymalTask(Options(horizon=6), num_envs, first_row=first_row)
            task.reset(7)
            steps = [task.step(torch.full((num_envs, 12), 0.2)).obs for _ in range(9)]  # it ends after six
            played.append(torch.stack(steps))
            first_row += num_envs
        return torch.cat(played, dim=1)

    assert torch.equal(play((3,)), play((1, 2)))


def test_the_registered_environment_says_the_same(stock: Any) -> None:
    assert stock.single_action_space.shape == (12,)
    assert sum(float(link.mass[0]) for link in stock.agent.robot.links) == pytest.approx(52.13, abs=0.01)
    obs, _ = stock.reset(seed=5)
    again, _ = stock.reset(seed=5)
    torch.testing.assert_close(obs, again)
    _, reward, terminated, _, info = stock.step(np.zeros(12, np.float32))
    assert 0.0 <= float(reward) < 0.1
    assert not bool(terminated)
    stock.reset(options={"start": torch.tensor([[*REST_QPOS, math.pi / 2, 0.2]])})  # beacons within the goal's radius
    assert float(compute_heading(stock.read_state())) == pytest.approx(math.pi / 2)
    _, reward, terminated, _, info = stock.step(np.zeros(12, np.float32))
    assert bool(terminated & info["success"])
    assert float(reward) == 1.0
    stock.reset(seed=5)
    ends = [stock.step(np.zeros(12, np.float32)) for _ in range(30)]
    assert any(bool(terminated & info["fail"]) for _, _, terminated, _, info in ends)
    assert not any(bool(info["success"]) for *_, info in ends)


def test_the_batched_interface_means_the_same(task: AnymalTask) -> None:
    batched = AnymalTask(Options(), 1, batched=True)
    for seed in (0, 1):  # the second time, a reset of a scene in use
        torch.testing.assert_close(batched.reset(seed), task.reset(seed), atol=1e-4, rtol=0)
        for _ in range(3):
            action = torch.from_numpy(_trot(task, "left")).float()[None]
            ours, theirs = batched.step(action), task.step(action)
            torch.testing.assert_close(ours.obs, theirs.obs, atol=0.02, rtol=0)
            torch.testing.assert_close(ours.reward, theirs.reward, atol=1e-3, rtol=0)
    batched.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_and_resets_on_a_gpu() -> None:
    env = AnymalTask(Options(horizon=8), 16, device="cuda")
    obs = env.reset(0)
    torch.testing.assert_close(env.reset(0), obs, atol=1e-4, rtol=0)
    for _ in range(2):
        step = env.step_chunk(torch.rand(16, 4, 12, device="cuda") * 2.0 - 1.0)
        assert torch.isfinite(step.obs_path).all()
    env.close()
