"""Recorded functions do what they do without a recording, number for number. CUDA itself: `tests/devices`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.errors import ConfigError, TaskError
from bmd_pipeline.methods import METHODS
from bmd_pipeline.rl.agent import Agent
from bmd_pipeline.rl.graphs import WARM_UPS, Graphed, GraphedEnv, graph_agent, graph_env
from bmd_pipeline.rl.rollout import roll_out
from bmd_pipeline.rl.trainer import Trainer, pack_trainer
from bmd_pipeline.tasks import registry
from tests.rl.tape import TapeRecorder
from tests.rl.twins import (
    PUBLISHED,
    REINFORCED,
    STOPPING,
    TAUGHT,
    iterate,
    make_agents,
    make_native,
    make_trainers,
    play_both,
    roll_back_and_resume,
)

NATIVE = ("GaussianMixture", "AvoidPoint")


@pytest.fixture
def tape() -> TapeRecorder:
    return TapeRecorder()


def double(seen: Mapping[str, Tensor], generator: torch.Generator | None) -> dict[str, Tensor]:
    return {"y": 2.0 * seen["x"]}


# the mechanism ----------------------------------------------------------------------------------------


def test_a_shape_is_recorded_once_after_its_warm_ups(tape: TapeRecorder) -> None:
    graphed = Graphed(double, "doubling", tape)
    for call in range(WARM_UPS + 3):
        assert graphed({"x": torch.full((2,), float(call))})["y"].tolist() == [2.0 * call] * 2
    assert tape.running == ["warm-up"] * WARM_UPS + ["record"] + ["replay"] * 3
    assert (graphed.recordings, graphed.replays) == (1, 3)
    graphed({"x": torch.zeros(3)})
    graphed({"x": torch.zeros(2, dtype=torch.float64)})
    assert tape.running[-2:] == ["warm-up"] * 2


def test_the_next_call_overwrites_what_the_last_one_returned(tape: TapeRecorder) -> None:
    graphed = Graphed(double, "doubling", tape)
    first, second = [graphed({"x": torch.full((2,), float(call))})["y"] for call in range(WARM_UPS + 2)][-2:]
    assert first.data_ptr() == second.data_ptr()
    assert second.tolist() == [2.0 * (WARM_UPS + 1)] * 2


def test_rows_are_gathered(tape: TapeRecorder) -> None:
    graphed = Graphed(double, "doubling", tape)
    x, empty = torch.arange(10.0)[:, None], torch.zeros(10, 0)
    for shift in range(WARM_UPS + 2):
        rows = torch.tensor([3, 1, 4]) + shift
        assert torch.equal(graphed({"x": x, "empty": empty}, rows=rows)["y"], 2.0 * x[rows])


def test_draws_are_those_of_the_callers_generator(tape: TapeRecorder) -> None:
    def draw(seen: Mapping[str, Tensor], generator: torch.Generator | None) -> dict[str, Tensor]:
        return {"y": seen["x"] + torch.randn(seen["x"].shape, generator=generator)}

    graphed = Graphed(draw, "drawing", tape)
    x = torch.zeros(5)
    for seed in (0, 1):
        ours, theirs = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        for _ in range(WARM_UPS + 1):
            assert torch.equal(graphed({"x": x}, generator=ours)["y"], draw({"x": x}, theirs)["y"])
        assert torch.equal(ours.get_state(), theirs.get_state())
    assert graphed.replays == WARM_UPS + 2


def test_what_cannot_be_recorded_is_named(tape: TapeRecorder) -> None:
    graphed = Graphed(lambda seen, _: {"y": seen["x"] * float(seen["x"].sum())}, "a product", tape)
    for _ in range(WARM_UPS):
        graphed({"x": torch.ones(2)})
    message = r"^a product can't be recorded as a CUDA graph \(.* while recording\): set execution\.cuda_graphs=false$"
    with pytest.raises(ConfigError, match=message):
        graphed({"x": torch.ones(2)})


def test_the_tape_keeps_python_out_as_a_device_does(tape: TapeRecorder) -> None:
    """Or the tests below would prove nothing."""
    factor, offset = 1.0, torch.zeros(2)
    graphed = Graphed(lambda seen, _: {"y": factor * seen["x"] + offset}, "a sum", tape)
    for _ in range(WARM_UPS + 1):
        graphed({"x": torch.ones(2)})
    factor = 3.0
    assert graphed({"x": torch.ones(2)})["y"].tolist() == [1.0, 1.0]
    offset += 5.0
    assert graphed({"x": torch.ones(2)})["y"].tolist() == [6.0, 6.0]


# tasks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NATIVE)
def test_steps_of_native_tasks_over_several_episodes(task: str, tape: TapeRecorder) -> None:
    graphed = graph_env(make_native(task, 16, "cpu"), tape)
    assert isinstance(graphed, GraphedEnv)
    for ours, theirs in play_both(make_native(task, 16, "cpu"), graphed):  # later steps left what was returned alone
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert graphed.steps.recordings == 1


def test_a_task_that_was_not_reset_or_is_handed_nonsense_says_so(tape: TapeRecorder) -> None:
    env = graph_env(make_native("GaussianMixture", 16, "cpu"), tape)
    with pytest.raises(TaskError, match="call reset"):
        env.step_chunk(torch.zeros(16, 2, 2))
    env.reset(0)
    for _ in range(WARM_UPS + 1):
        env.step_chunk(torch.zeros(16, 2, 2))
    with pytest.raises(TaskError, match="actions must be"):
        env.step_chunk(torch.zeros(15, 2, 2))


def test_only_tasks_that_say_so_are_recorded(tape: TapeRecorder) -> None:
    env = make_native("AvoidPoint", 4, "cpu")
    assert graph_env(env, None) is env
    assert graph_env(env, tape) is not env
    env.capturable = False
    assert graph_env(env, tape) is env


# agents -----------------------------------------------------------------------------------------------


def assert_same_rollouts(env: TaskEnv, agents: tuple[Agent, Agent], explore: bool) -> None:
    for seed in range(2):
        code = torch.arange(env.num_envs) % agents[0].num_codes
        ours, theirs = (
            roll_out(
                env,
                agent,
                seed=seed,
                code=code,
                generator=torch.Generator().manual_seed(seed),
                explore=explore,
                keep_draws=True,
            )
            for agent in agents
        )
        assert torch.equal(ours.track, theirs.track)
        assert ours.draws.keys() == theirs.draws.keys()
        assert all(torch.equal(value, theirs.draws[name]) for name, value in ours.draws.items())
        assert torch.equal(ours.cond, theirs.cond)


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("method", [*METHODS, TAUGHT, PUBLISHED])
def test_recorded_decisions(env: TaskEnv, tape: TapeRecorder, method: str, explore: bool) -> None:
    plain, other = make_agents(method, "cpu")
    agents = plain, graph_agent(other, tape)
    for iteration in (0, 2, 5):  # the share of decisions that use a residual grows
        for agent in agents:
            for adapter in agent.adapters:
                adapter.begin_iteration(iteration)
        assert_same_rollouts(env, agents, explore)
    assert tape.running.count("record") == (1 if agents[1].residual is None else 2)


# learning ---------------------------------------------------------------------------------------------


def assert_same(one: Trainer, other: Trainer) -> None:
    (ours, our_values), (theirs, their_values) = pack_trainer(one), pack_trainer(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []
    assert our_values == their_values


@pytest.mark.parametrize("method", [*REINFORCED, PUBLISHED])
def test_iterations_of_training(tape: TapeRecorder, method: str) -> None:
    plain, graphed = make_trainers(method, tape, entropy_weight=0.01)
    for iteration in range(4):
        warming_up = iteration == 1
        expected = iterate(plain, iteration, policy=not warming_up)
        assert iterate(graphed, iteration, policy=not warming_up) == expected
        assert (expected["losses/policy_steps"] == 0) == warming_up
        assert_same(plain, graphed)
    assert {policy: one.recordings for policy, one in graphed.learner.ppo.graphed.items()} == {True: 1, False: 1}
    assert all(one.replays > 4 for one in graphed.learner.ppo.graphed.values())


@pytest.mark.parametrize("method", REINFORCED)
def test_a_policy_that_stops_in_the_middle_of_its_updates(tape: TapeRecorder, method: str) -> None:
    plain, graphed = make_trainers(method, tape, **STOPPING)
    policy_steps = 0.0
    for iteration in range(1, 5):
        before = [parameter.clone() for parameter in graphed.learner.ppo.groups[0]]
        expected = iterate(plain, iteration)
        assert iterate(graphed, iteration) == expected
        assert_same(plain, graphed)
        assert expected["losses/kl_stopped"] == 1.0
        moved = any(not torch.equal(a, b) for a, b in zip(before, graphed.learner.ppo.groups[0], strict=True))
        assert moved == (expected["losses/policy_steps"] > 0)
        policy_steps += expected["losses/policy_steps"]
    # neither the gradient that stopped it nor one of zero, which Adam would follow too
    assert float(graphed.learner.ppo.optimizer.state[graphed.learner.ppo.groups[0][0]]["step"]) == policy_steps > 4
    assert all(one.replays > 0 for one in graphed.learner.ppo.graphed.values())


def test_a_rollback_and_a_resume_leave_recordings_of_use(tape: TapeRecorder) -> None:
    plain, graphed = make_trainers("dsrl-bmd", tape)
    for trainer in (plain, graphed):
        roll_back_and_resume(trainer)
    assert_same(plain, graphed)
    assert graphed.learner.ppo.graphed[True].recordings == 1


def test_selection_plays_with_recordings_too(tape: TapeRecorder) -> None:
    plain, graphed = make_trainers("dppo", tape)
    env = registry.make_env("GaussianMixture", {}, 12)
    for iteration in range(2):
        iterate(plain, iteration)
        iterate(graphed, iteration)
        assert_same_rollouts(env, (plain.agent, graphed.agent), explore=False)
    assert {kind: one.recordings for kind, one in graphed.agent.graphed.items()} == {
        ("plan", True): 1,
        ("plan", False): 1,
    }
