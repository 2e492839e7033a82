"""CUDA graphs do what the same device does kernel by kernel. The buffers around them: `tests/rl/test_graphs.py`."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from bmd_pipeline.config.schema import Disturbance
from bmd_pipeline.environments.wrappers import DisturbedEnv
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.methods import METHODS
from bmd_pipeline.rl.graphs import CUDA, WARM_UPS, Graphed, GraphedEnv, graph_agent, graph_env
from bmd_pipeline.rl.trainer import Trainer, pack_trainer
from tests.rl.decisions import decide
from tests.rl.twins import (
    PUBLISHED,
    REINFORCED,
    STOPPING,
    TAUGHT,
    draw_inputs,
    iterate,
    make_agents,
    make_native,
    make_trainers,
    play_both,
    roll_back_and_resume,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS = 256
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIZES = {"device": "cuda", "num_envs": 96, "minibatch_size": 256}


@pytest.fixture(autouse=True)
def graphs_of_earlier_tests_are_gone() -> Iterator[None]:
    """Python must not destroy them while the next one is recorded."""
    gc.collect()
    yield
    torch.cuda.synchronize()


def assert_close(plain: Trainer, graphed: Trainer) -> None:
    """Adam's first steps are as large where a gradient is rounding as where it is not."""
    ours, theirs = pack_trainer(plain)[0], pack_trainer(graphed)[0]
    assert ours.keys() == theirs.keys()
    print("the same bits:", all(torch.equal(value, theirs[name]) for name, value in ours.items()))
    for name, value in ours.items():
        assert float(torch.isclose(theirs[name], value, rtol=1e-3, atol=2e-4).float().mean()) > 0.99, name


def assert_same_metrics(expected: dict[str, float], found: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-2, abs=1e-3), name


@pytest.mark.parametrize("explore", [True, False])
@pytest.mark.parametrize("method", [*METHODS, TAUGHT, PUBLISHED])
def test_decisions_draw_the_same_numbers(method: str, explore: bool) -> None:
    plain, other = make_agents(method, "cuda")
    graphed = graph_agent(other, CUDA)
    earlier = []
    for seed in range(3):  # every iteration has a generator of its own
        generators = [torch.Generator("cuda").manual_seed(seed) for _ in range(2)]
        for adapter in (*plain.adapters, *graphed.adapters):
            adapter.begin_iteration(seed)
        for _ in range(WARM_UPS):
            inputs = draw_inputs(plain, ROWS, torch.Generator("cuda").manual_seed(len(earlier)))
            with torch.no_grad():
                (actions, draws), (others, other) = (
                    decide(agent, inputs, generator, explore)
                    for agent, generator in zip((plain, graphed), generators, strict=True)
                )
            assert draws.keys() == other.keys()
            earlier.append(({"actions": actions, **draws}, {"actions": others, **other}))
            assert torch.equal(*(generator.get_state() for generator in generators))
    for expected, found in earlier:  # later decisions left earlier ones alone
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **TOLERANCE)
    assert len(graphed.graphed) == (1 if graphed.residual is None else 2)
    for each in graphed.graphed.values():
        assert (each.recordings, each.replays) == (1, 2 * WARM_UPS)


@pytest.mark.parametrize("task", ["GaussianMixture", "AvoidPoint"])
def test_steps_of_native_tasks_over_several_episodes(task: str) -> None:
    graphed = graph_env(make_native(task, ROWS, "cuda"), CUDA)
    assert isinstance(graphed, GraphedEnv)
    for expected, found in play_both(make_native(task, ROWS, "cuda"), graphed):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, **TOLERANCE)
    assert graphed.steps.recordings == 1
    assert graphed.steps.replays > 10


def test_a_disturbance_stays_outside_of_what_is_recorded() -> None:
    plain, graphed = make_native("AvoidPoint", ROWS, "cuda"), graph_env(make_native("AvoidPoint", ROWS, "cuda"), CUDA)
    assert isinstance(graphed, GraphedEnv)
    world = Disturbance(action_noise=0.5, action_delay=1, obs_noise=0.1)
    unit = torch.ones(plain.spec.obs_dim, device="cuda")
    envs = [DisturbedEnv(env, world, unit) for env in (plain, graphed)]
    for seed in range(2):
        torch.testing.assert_close(*(env.reset(seed) for env in envs), **TOLERANCE)
        for _ in range(10):
            actions = torch.full((ROWS, 4, 2), 0.3, device="cuda")
            expected, found = (vars(env.step_chunk(actions)) for env in envs)
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, **TOLERANCE)
    assert graphed.steps.replays > 10


@pytest.mark.parametrize("method", REINFORCED)
def test_iterations_of_training(method: str) -> None:
    """The critic alone, in the second, and both."""
    plain, graphed = make_trainers(method, CUDA, entropy_weight=0.01, **SIZES)
    for iteration in range(4):
        warming_up = iteration == 1
        expected = iterate(plain, iteration, policy=not warming_up)
        assert_same_metrics(expected, iterate(graphed, iteration, policy=not warming_up))
        assert (expected["losses/policy_steps"] == 0) == warming_up
        assert_close(plain, graphed)
    assert {policy: one.recordings for policy, one in graphed.learner.ppo.graphed.items()} == {True: 1, False: 1}
    assert all(one.replays > 4 for one in graphed.learner.ppo.graphed.values())
    assert {one.recordings for one in graphed.agent.graphed.values()} == {1}
    assert isinstance(graphed.env, GraphedEnv)
    assert graphed.env.steps.recordings == 1


@pytest.mark.parametrize("method", REINFORCED)
def test_a_policy_that_stops_in_the_middle_of_its_updates(method: str) -> None:
    plain, graphed = make_trainers(method, CUDA, **SIZES, **STOPPING)
    stopped = policy_steps = 0.0
    for iteration in range(2, 5):
        expected = iterate(plain, iteration)
        found = iterate(graphed, iteration)
        assert found["losses/policy_steps"] == expected["losses/policy_steps"]
        assert_same_metrics(expected, found)
        assert_close(plain, graphed)
        stopped += expected["losses/kl_stopped"]
        policy_steps += expected["losses/policy_steps"]
    assert stopped > 0
    assert float(graphed.learner.ppo.optimizer.state[graphed.learner.ppo.groups[0][0]]["step"]) == policy_steps > 3
    assert all(one.replays > 0 for one in graphed.learner.ppo.graphed.values())


@pytest.mark.parametrize("method", ["dsrl-bmd", "dppo"])
def test_a_rollback_and_a_resume_leave_graphs_of_use(method: str) -> None:
    plain, graphed = make_trainers(method, CUDA, **SIZES)
    for trainer in (plain, graphed):
        roll_back_and_resume(trainer)
    assert_close(plain, graphed)
    assert graphed.learner.ppo.graphed[True].recordings == 1


def test_gradients_follow_weights_that_change_between_replays() -> None:
    """Without steps in between, so that nothing but the replays can be wrong."""
    plain, graphed = make_trainers("dppo-bmd", CUDA, **SIZES)
    played = plain.play(iteration=0, seed=0, generator=torch.Generator("cuda").manual_seed(0))
    batch = plain.learner._batch(played, plain.learner._streams(played, played.reward, False)[0], None)
    for call in range(WARM_UPS + 3):
        index = torch.randperm(len(batch.advantage), generator=torch.Generator().manual_seed(call))[:256].cuda()
        found = []
        for trainer in (plain, graphed):
            with torch.no_grad():
                for group in trainer.learner.ppo.groups:
                    for parameter in group:
                        parameter.mul_(1.01)
            losses = trainer.learner.ppo._differentiate(batch, index, policy=True)
            gradients = [parameter.grad for group in trainer.learner.ppo.groups for parameter in group]
            found.append([*vars(losses).values(), *(value.clone() for value in gradients if value is not None)])
        for ours, theirs in zip(*found, strict=True):
            scale = float(ours.abs().max())
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5 * scale + 1e-8)
    assert graphed.learner.ppo.graphed[True].replays == 3


def test_what_cannot_be_recorded_is_named() -> None:
    """The last one, since a recording that fails may leave the allocator in a state of its own."""
    graphed = Graphed(lambda seen, _: {"y": seen["x"] * float(seen["x"].sum())}, "a product", CUDA)
    x = torch.ones(2, device="cuda")
    for _ in range(WARM_UPS):
        graphed({"x": x})
    with pytest.raises(ConfigError, match=r"a product can't be recorded .*: set execution\.cuda_graphs=false"):
        graphed({"x": x})
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
