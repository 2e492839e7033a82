"""The obstacle course, its expert and its labels."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.load import load_config
from bmd_pipeline.environments.base import Transition
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.avoid_point.course import (
    CENTRE,
    FINISH_Y,
    MODE_GAPS,
    MODES,
    NOT_REACHED,
    ROWS,
    SCALE,
    START,
    Course,
)
from bmd_pipeline.tasks.avoid_point.env import POINT_RADIUS, AvoidPoint
from bmd_pipeline.tasks.avoid_point.expert import make_expert
from bmd_pipeline.tasks.avoid_point.options import Options
from bmd_pipeline.tasks.checker import check_task

CONFIG_DIR = Path(__file__).parents[2] / "config"
COURSE = Course()


def label(track: Tensor) -> Tensor:
    """Mode weights (N, 24) of paths (T, N, 2)."""
    (labelling,) = registry.load_labellings("AvoidPoint")
    assert labelling.modes == MODES
    _, episodes, _ = track.shape
    return labelling.label(track, torch.zeros(episodes), torch.zeros(episodes, dtype=torch.bool))


def path_through(gaps: tuple[int, ...]) -> Tensor:
    """A path (T, 2) by corners, through the given gaps of the first rows and no further."""
    corners = [START]
    for row, gap in zip(ROWS, gaps, strict=False):
        corners += [(row.gap_centre(gap), row.y - 0.04), (row.gap_centre(gap), row.y + 0.04)]
    if len(gaps) == len(ROWS):
        corners.append((corners[-1][0], FINISH_Y + 0.01))
    return torch.tensor(corners)


def test_modes_are_the_choices_of_gaps() -> None:
    assert len(MODES) == len(set(MODES)) == 2 * 3 * 4
    assert MODES[0] == "L-L-1"
    assert MODES[5] == "L-M-2"
    assert MODES[23] == "R-R-4"
    assert ROWS[1].gap_centre(0) == pytest.approx(0.355)
    assert ROWS[2].gap_centre(1) == pytest.approx(0.425)


@pytest.mark.parametrize("gaps", MODE_GAPS, ids=MODES)
def test_every_mode_has_a_free_way_that_carries_its_name(gaps: tuple[int, ...]) -> None:
    path = path_through(gaps)
    dense = torch.cat([torch.lerp(a, b, torch.linspace(0, 1, 50)[:, None]) for a, b in pairwise(path)])
    assert not bool(COURSE.is_blocked(dense, POINT_RADIUS).any())
    assert COURSE.is_finished(dense).nonzero().min() > len(dense) - 50, "the finish line is crossed last"
    weights = label(dense[:, None])
    assert weights[0].tolist() == [float(mode == gaps) for mode in MODE_GAPS]


@pytest.mark.parametrize("rows_passed", [0, 1, 2, 3])
def test_a_failure_counts_for_all_modes_it_could_still_become(rows_passed: int) -> None:
    for gaps in product(*(range(len(row.gaps)) for row in ROWS[:rows_passed])):
        names = [row.gaps[gap] for row, gap in zip(ROWS, gaps, strict=False)]
        possible = [mode.split("-")[:rows_passed] == names for mode in MODES]
        expected = torch.tensor(possible).float() / sum(possible)
        torch.testing.assert_close(label(path_through(gaps)[:, None])[0], expected)


def test_the_first_crossing_of_a_row_counts() -> None:
    there_and_back = [(0.42, -0.15), (0.42, -0.09), (0.42, -0.15), (0.58, -0.15), (0.58, 0.0)]
    weights = label(torch.tensor(there_and_back)[:, None])[0]
    assert [mode for mode, weight in zip(MODES, weights, strict=True) if weight > 0] == list(MODES[:12])


def test_tracing_a_path_equals_following_it() -> None:
    steps = torch.randn(400, 256, 2, generator=torch.Generator().manual_seed(0))
    track = torch.tensor(START) + (0.02 * steps + torch.tensor([0.0, 0.002])).cumsum(dim=0)
    gaps = torch.full((256, 3), NOT_REACHED)
    for position in track:
        gaps = COURSE.update_gaps(gaps, position)
    assert torch.equal(gaps, COURSE.trace(track))
    assert len(gaps.unique(dim=0)) > 24, "finished and unfinished paths of all kinds"


def drive(velocity: tuple[float, float]) -> tuple[AvoidPoint, Transition]:
    env = AvoidPoint(Options(), 4)
    env.reset(0)
    return env, env.step_chunk(torch.tensor(velocity).expand(4, 120, 2))


@pytest.mark.parametrize(
    ("velocity", "open_modes"),
    [((-0.14, 1.0), 24), ((0.0, -1.0), 24), ((-1.0, 0.0), 24), ((1.0, 0.0), 24), ((0.8, 1.0), 4)],
    ids=["post", "behind the field", "left of it", "right of it", "right of it behind two rows"],
)
def test_touching_a_post_or_leaving_the_field_fails(velocity: tuple[float, float], open_modes: int) -> None:
    env, moved = drive(velocity)
    assert bool(moved.terminated.all())
    assert not bool((moved.success | moved.truncated).any())
    assert not bool(moved.reward.any())
    track = moved.track_path
    before = track[moved.steps - 2, torch.arange(4)]
    assert not bool(COURSE.is_blocked(before, POINT_RADIUS).any())
    assert bool(COURSE.is_blocked(env.position, POINT_RADIUS).all())
    assert (label(track) > 0).sum(dim=1).tolist() == [open_modes] * 4


def cross_the_line(options: Options) -> Transition:
    """24 environments that took one way each take their last step."""
    env = AvoidPoint(options, 24)
    env.reset(0)
    env.position = torch.tensor([(ROWS[2].gap_centre(gaps[2]), FINISH_Y - 0.011) for gaps in MODE_GAPS])
    env.referee.gaps = torch.tensor(MODE_GAPS)
    short = env.step(torch.tensor([0.0, 0.9]).expand(24, 2))
    assert not bool((short.success | short.reward[0].bool()).any())
    return env.step(torch.tensor([0.0, 0.1]).expand(24, 2))


def test_crossing_the_finish_line_succeeds_and_pays() -> None:
    plain = cross_the_line(Options())
    assert bool((plain.success & plain.terminated).all())
    assert plain.reward.tolist() == [[1.0] * 24]
    shifted = cross_the_line(Options(reward="shifted"))
    assert bool(shifted.success.all())
    expected = {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0}
    favoured = dict(zip(MODES, shifted.reward[0].tolist(), strict=True))
    for mode, pay in favoured.items():
        agreeing = sum(a == b for a, b in zip(mode.split("-"), ("L", "M", "2"), strict=True))
        assert pay == expected[agreeing]
    elsewhere = cross_the_line(Options(reward="shifted", favoured_gaps=(1, 2, 3))).reward[0]
    assert int(elsewhere.argmax()) == MODES.index("R-R-4")


def test_the_expert_shows_all_modes_and_keeps_to_them() -> None:
    expert = make_expert(Options())
    assert expert.behaviours == MODES
    successes = 0
    for behaviour in range(24):
        episode = expert.demonstrate(behaviour, seed=behaviour)
        seen = torch.from_numpy(episode.obs)[:, :2] * torch.tensor(SCALE) + torch.tensor(CENTRE)
        path = torch.cat([seen, expert._env.track()])
        weights = label(path[:, None])[0]
        successes += episode.success
        assert episode.success == bool(weights[behaviour] == 1.0 and COURSE.is_finished(path[-1]))
    assert successes == 24


def test_the_clean_action_is_recorded() -> None:
    noisy, calm = (make_expert(Options(expert_noise=noise)) for noise in (0.4, 0.0))
    shown, smooth = noisy.demonstrate(7, seed=3), calm.demonstrate(7, seed=3)
    for episode in (shown, smooth):
        pace = np.abs(episode.action).max(axis=1)
        assert np.ptp(pace) < 1e-5, "an action that was wanted has the episode's pace"
    env = AvoidPoint(Options(), 1)
    for episode, replays in ((smooth, True), (shown, False)):
        env.reset(3)
        moved = env.step_chunk(torch.from_numpy(episode.action)[None])
        same = torch.equal(moved.obs_path[: len(episode.obs) - 1, 0], torch.from_numpy(episode.obs)[1:])
        assert same == replays
    again = noisy.demonstrate(7, seed=3)
    assert np.array_equal(again.action, shown.action)
    assert np.array_equal(again.obs, shown.obs)


def test_the_observation_is_the_position_and_its_waves() -> None:
    for frequencies in (0, 1, 3):
        env = AvoidPoint(Options(position_frequencies=frequencies), 3)
        obs = env.reset(0).double()
        p = (env.track().double() - torch.tensor(CENTRE)) / torch.tensor(SCALE)
        waves = [wave(2**octave * p) for octave in range(1, frequencies + 1) for wave in (torch.sin, torch.cos)]
        torch.testing.assert_close(obs, torch.cat([p, *waves], dim=1), atol=1e-5, rtol=0)
        assert obs.shape == (3, env.spec.obs_dim)


def test_the_variant_pays_graded() -> None:
    config = load_config("AvoidPointShifted", preset="smoke", config_dir=CONFIG_DIR)
    assert config.task.extends == "AvoidPoint"
    assert config.task.env["reward"] == "shifted"
    assert load_config("AvoidPoint", preset="cpu", config_dir=CONFIG_DIR).task.env["reward"] == "plain"


def test_the_gusty_variant_pays_graded_in_another_world() -> None:
    config = load_config("AvoidPointGust", preset="smoke", config_dir=CONFIG_DIR)
    assert config.task.env["reward"] == "shifted"
    assert registry.load_disturbance(config.task.env).describe() == "action_noise=0.5"


def test_a_gap_that_is_not_there_is_refused() -> None:
    with pytest.raises(registry.ConfigError, match=r"env\.favoured_gaps"):
        registry.make_env("AvoidPoint", {"favoured_gaps": [2, 0, 0]}, 1)


@pytest.mark.parametrize("reward", ["plain", "shifted"])
def test_the_contract_is_kept(reward: str) -> None:
    results = check_task("AvoidPoint", {"reward": reward}, num_envs=16)
    assert [result for result in results if not result.passed] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_contract_is_kept_on_a_gpu() -> None:
    results = check_task("AvoidPoint", {"reward": "shifted"}, num_envs=16, device="cuda", expert_episodes=1)
    assert [result for result in results if not result.passed] == []
