"""PushT in simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.tasks.pusht.env import (
    GOAL,
    REST_QPOS,
    TIP_HEIGHT,
    GoalOverlap,
    PushTScene,
    PushTTask,
    compute_distance,
    compute_obs,
    draw_random,
    make_env,
    make_spec,
    make_start,
)
from bmd_pipeline.tasks.pusht.options import Options

NUM_ENVS = 3


@pytest.fixture(scope="module")
def scenes() -> Iterator[PushTTask]:
    env = PushTTask(Options(), NUM_ENVS)
    yield env
    env.close()


@pytest.fixture
def env(scenes: PushTTask) -> Iterator[PushTTask]:
    """The module's scenes under settings that a test may replace."""
    yield scenes
    scenes.options, scenes.spec = Options(), make_spec(Options())


def _set(env: PushTTask, **settings: Any) -> None:
    env.options = Options(**settings)
    env.spec = make_spec(env.options)


def _towards_tee(env: PushTTask, generator: torch.Generator) -> Tensor:
    gap = env.state[:, 3:5] - env.state[:, :2]
    noise = torch.randn(NUM_ENVS, 2, generator=generator)
    return 0.6 * gap / gap.norm(dim=1, keepdim=True) + 0.3 * noise


def _place(env: PushTTask, tee: np.ndarray) -> None:
    """Starts episodes with every T at a given pose."""
    env.reset(0)
    start = torch.tensor(np.tile([*REST_QPOS, *tee], (NUM_ENVS, 1)))
    env.state = env.simulation.place(start)
    env._begin()


def test_observation_by_hand() -> None:
    state = torch.tensor([[-0.006, -0.1, 0.014, -0.106, -0.1, float(GOAL[2]) + math.pi / 2]])
    yaw = float(GOAL[2]) + math.pi / 2
    expected = [1.0, 0.0, 0.5, 0.0, 0.0, 1.0, math.cos(yaw), -math.sin(yaw)]
    torch.testing.assert_close(compute_obs(state), torch.tensor([expected]), atol=1e-5, rtol=0)


def test_starts_are_drawn_per_seed_row_and_episode_inside_the_box() -> None:
    def draw(*number: int, **settings: float) -> np.ndarray:
        random = torch.from_numpy(draw_random(np.random.default_rng(number)))
        return make_start(random[None], Options(**settings))[0].numpy()  # type: ignore[arg-type]

    drawn = np.array([draw(0, row, 0) for row in range(300)])
    assert np.abs(drawn[:, :7] - REST_QPOS).max() < 0.1
    np.testing.assert_allclose((drawn[:, :7] - REST_QPOS).std(), 0.02, rtol=0.1)
    starts = drawn[:, 7:]
    offset = starts - GOAL
    assert np.abs(np.rad2deg(offset[:, 2]) - 180.0).max() <= 30.0
    assert (np.abs(offset[:, 0]) <= 0.1).all()
    assert (offset[:, 1] >= -0.1).all()
    assert (offset[:, 1] <= 0.2).all()
    assert np.ptp(offset[:, 0]) > 0.18
    assert np.ptp(offset[:, 1]) > 0.28
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not np.array_equal(draw(*other)[7:], starts[0])
    tight = draw(5, 3, 2, position_box=0.0, yaw_range_deg=0.0)[7:]
    np.testing.assert_allclose(tight, np.add(GOAL, [0.0, 0.05, np.pi]))


def test_an_episode_starts_where_its_numbers_say(env: PushTTask) -> None:
    env.reset(7)
    random = np.stack([draw_random(np.random.default_rng((7, row, 0))) for row in range(NUM_ENVS)])
    expected = make_start(torch.from_numpy(random), env.options)
    torch.testing.assert_close(env.state[:, 3:].double(), expected[:, 7:], atol=1e-5, rtol=0)
    for scene, qpos in zip(env.simulation.scenes, expected[:, :7], strict=True):  # type: ignore[attr-defined]
        np.testing.assert_allclose(scene.arm.qpos, qpos, atol=1e-5)


def test_turns_are_counted_beyond_a_whole_one(env: PushTTask) -> None:
    """A T that is carried round keeps counting where its quaternion starts anew."""
    env.reset(0)
    scene = env.simulation.scenes[0]  # type: ignore[attr-defined]
    begin = scene.read()[5]
    for turn in np.arange(0.5, 14.0, 0.5):
        scene._tee.place(0.1, 0.0, 0.021, begin + turn)
        assert scene.read()[5] == pytest.approx(begin + turn, abs=1e-4)


def test_the_same_seed_gives_the_same_episodes(env: PushTTask) -> None:
    def play(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        env.reset(seed)
        steps = [env.step(_towards_tee(env, generator)) for _ in range(40)]
        return torch.stack([step.obs for step in steps]), env.track()

    obs, track = play(4)
    other, _ = play(5)
    again, track_again = play(4)
    assert track[:, 4].abs().max() > 0.02  # the T was turned
    torch.testing.assert_close(again, obs, rtol=0, atol=0)
    torch.testing.assert_close(track_again, track, rtol=0, atol=0)
    assert not torch.equal(other, obs)


def test_height_and_orientation_are_held(env: PushTTask) -> None:
    env.reset(1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        env.step(_towards_tee(env, generator))
    assert (env.state[:, 2] - TIP_HEIGHT).abs().max() < 0.01
    for scene in env.simulation.scenes:  # type: ignore[attr-defined]
        assert abs(float(scene.arm.pose.q[1])) > 0.99


def test_a_tee_at_its_goal_succeeds(env: PushTTask) -> None:
    _place(env, np.add(GOAL, [0.001, 0.0, 0.0]))
    step = env.step(torch.zeros(NUM_ENVS, 2))
    assert step.success.all()
    assert step.terminated.all()
    assert not step.truncated.any()
    torch.testing.assert_close(step.reward[0], torch.ones(NUM_ENVS), atol=0.01, rtol=0)  # the bonus
    frozen = env.step(torch.ones(NUM_ENVS, 2))
    assert not frozen.reward.any()
    torch.testing.assert_close(frozen.obs, step.obs)


def test_half_covered_is_no_success_unless_asked_for(env: PushTTask) -> None:
    _place(env, np.add(GOAL, [0.03, 0.0, 0.0]))
    assert not env.step(torch.zeros(NUM_ENVS, 2)).success.any()
    _set(env, success_threshold=0.4)
    _place(env, np.add(GOAL, [0.03, 0.0, 0.0]))
    assert env.step(torch.zeros(NUM_ENVS, 2)).success.all()


def test_reward_is_progress_and_adds_up(env: PushTTask) -> None:
    generator = torch.Generator().manual_seed(2)
    env.reset(2)
    before = compute_distance(env.state)
    rewards = [env.step(_towards_tee(env, generator)).reward[0] for _ in range(40)]
    change = before - compute_distance(env.state)
    assert change.abs().max() > 0.05
    torch.testing.assert_close(torch.stack(rewards).sum(0), change, atol=1e-4, rtol=0)


def test_turn_weights_scale_the_whole_reward(env: PushTTask) -> None:
    def play(**settings: Any) -> tuple[Tensor, Tensor]:
        _set(env, **settings)
        generator = torch.Generator().manual_seed(2)
        env.reset(2)
        steps = [env.step(_towards_tee(env, generator)) for _ in range(40)]
        return torch.cat([step.reward for step in steps]), torch.cat([step.track_path for step in steps])

    plain, track = play()
    weighted, _ = play(turn_weights=(0.5, 2.0), progress_scale=3.0)
    turn = track[..., 4]
    assert turn.min() < -0.05
    assert turn.max() > 0.05
    decided = turn.abs() > 1e-3
    factor = torch.where(turn > 0, 6.0, 1.5)
    torch.testing.assert_close(weighted[decided], (plain * factor)[decided], atol=1e-6, rtol=1e-4)


def test_the_time_limit_truncates_and_a_reset_starts_anew(env: PushTTask) -> None:
    _set(env, horizon=6)
    first = env.reset(0)
    assert not env.step_chunk(torch.zeros(NUM_ENVS, 4, 2)).done.any()
    end = env.step_chunk(torch.zeros(NUM_ENVS, 4, 2))
    assert end.truncated.all()
    assert not end.success.any()
    assert not torch.allclose(env.reset(1), first, atol=1e-2)
    assert not env.elapsed.any()
    assert env.track()[:, 4].abs().max() < 1e-3  # the turn counts from the new start


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    def play(num_workers: int) -> list[Tensor]:
        env = make_env(Options(horizon=10), NUM_ENVS, device="cpu", num_workers=num_workers)
        generator = torch.Generator().manual_seed(0)
        seen = [env.reset(3), env.track()]
        for _ in range(4):
            seen += vars(env.step_chunk(2.0 * torch.rand(NUM_ENVS, 4, 2, generator=generator) - 1.0)).values()
        env.close()
        return seen

    for expected, got in zip(play(1), play(2), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_overlap_is_maniskills_own() -> None:
    scene = PushTScene()
    overlap = GoalOverlap(scene.env)
    generator = np.random.default_rng(0)
    offset = generator.normal(0.0, 1.0, (150, 3)) * np.geomspace(0.01, 0.15, 150)[:, None] * [1.0, 1.0, 6.0]
    expected, state = [], []
    for pose in GOAL + offset:
        scene.place([*REST_QPOS, *pose])
        expected.append(float(scene.env.pseudo_render_intersection()))
        state.append(scene.read())
    x, y, yaw = torch.tensor(state)[:, 3:].unbind(1)
    got = overlap(x, y, yaw)
    # the two turn quaternions into angles differently: a cell at a border may fall either way
    torch.testing.assert_close(got, torch.tensor(expected), atol=0.004, rtol=0)
    assert (got == torch.tensor(expected)).float().mean() > 0.8
    assert got.max() > 0.9
    assert got.min() < 0.3
