"""Disturbances: each does exactly what it says, and leaves the rest of the environment alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmd_pipeline.config.schema import Disturbance
from bmd_pipeline.environments.base import TaskEnv, TaskSpec, Transition, VectorTask
from bmd_pipeline.environments.wrappers import DisturbedEnv
from bmd_pipeline.rl.graphs import GraphedEnv, graph_env
from bmd_pipeline.tasks import registry
from tests.rl.tape import TapeRecorder
from tests.tasks.toy import Walk

N, STEPS, DIM = 3, 6, 2
UNIT = torch.tensor([1.0, 0.5])

disturbances = st.builds(
    Disturbance,
    action_noise=st.sampled_from((0.0, 0.5)),
    action_gain=st.sampled_from((1.0, 0.8, 1.5)),
    action_delay=st.integers(0, 4),
    locked_action=st.sampled_from((None, 0, 1)),
    obs_noise=st.sampled_from((0.0, 0.1)),
)
chunkings = st.sets(st.integers(1, STEPS - 1)).map(
    lambda cuts: [stop - start for start, stop in itertools.pairwise([0, *sorted(cuts), STEPS])]
)


class Notebook(VectorTask):
    """Writes down what it is told to execute, before it clips it; what is seen and tracked is the last action."""

    spec = TaskSpec("Notebook", DIM, DIM, ("x", "y"), ("x", "y"), horizon=20)

    def __init__(self) -> None:
        super().__init__(N)
        self.executed: list[Tensor] = []
        self.last = torch.zeros(N, DIM)

    def step_chunk(self, actions: Tensor) -> Transition:
        self.executed.extend(actions.unbind(dim=1))
        return super().step_chunk(actions)

    def _reset(self, seed: int) -> None:
        self.executed = []
        self.last = torch.zeros(N, DIM)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.last = torch.where(active[:, None], action, self.last)
        never = torch.zeros(N, dtype=torch.bool)
        return action[:, 0], never, never

    def _observe(self) -> Tensor:
        return self.last.clone()

    track = _observe


def draw_actions(seed: int = 0, scale: float = 0.9) -> Tensor:
    """Actions (N, STEPS, DIM) in [-scale, scale]."""
    return scale * (2 * torch.rand(N, STEPS, DIM, generator=torch.Generator().manual_seed(seed)) - 1)


def execute(world: Disturbance, actions: Tensor, lengths: list[int] | None = None, seed: int = 0) -> Tensor:
    """What is executed (STEPS, N, DIM) where actions are asked for, in chunks of so many steps."""
    notebook = Notebook()
    play(DisturbedEnv(notebook, world, UNIT), actions, lengths or [STEPS], seed)
    return torch.stack(notebook.executed)


def play(env: TaskEnv, actions: Tensor, lengths: list[int], seed: int = 0) -> list[Transition]:
    env.reset(seed)
    return [env.step_chunk(chunk) for chunk in actions.split(lengths, dim=1)]


def assert_equal(one: Transition, other: Transition) -> None:
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(other, name)), name


@pytest.mark.parametrize("task", ["GaussianMixture", "AvoidPoint"])
def test_without_a_disturbance_nothing_changes(task: str) -> None:
    plain = registry.make_env(task, {}, 5)
    wrapped = DisturbedEnv(registry.make_env(task, {}, 5), Disturbance(), torch.ones(plain.spec.obs_dim))
    actions = 3 * torch.randn(5, plain.spec.horizon + 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain.reset(5), wrapped.reset(5))
    for chunk in actions.split(7, dim=1):
        assert_equal(plain.step_chunk(chunk), wrapped.step_chunk(chunk))
        assert torch.equal(plain.track(), wrapped.track())


@given(delay=st.integers(0, 8), lengths=chunkings)
def test_a_delay_shifts_actions_and_begins_with_none(delay: int, lengths: list[int]) -> None:
    actions = draw_actions()
    asked = torch.cat([torch.zeros(delay, N, DIM), actions.transpose(0, 1)])[:STEPS]
    assert torch.equal(execute(Disturbance(action_delay=delay), actions, lengths), asked)


@given(gain=st.floats(0.0, 3.0), locked=st.sampled_from((None, 0, 1)))
def test_actions_are_clipped_then_multiplied_then_locked(gain: float, locked: int | None) -> None:
    actions = draw_actions(scale=2.0)
    asked = gain * actions.clone().clamp(-1.0, 1.0)
    if locked is not None:
        asked[..., locked] = 0.0
    before = actions.clone()
    assert torch.equal(execute(Disturbance(action_gain=gain, locked_action=locked), actions), asked.transpose(0, 1))
    assert torch.equal(actions, before)  # the caller's own


def test_action_noise_is_white_of_its_size_and_spares_what_is_locked() -> None:
    quiet = [torch.zeros(N, STEPS, DIM)] * 400
    noise = torch.stack([execute(Disturbance(action_noise=0.5), rest, seed=seed) for seed, rest in enumerate(quiet)])
    torch.testing.assert_close(noise.std(), torch.tensor(0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(noise.mean(), torch.tensor(0.0), atol=0.015, rtol=0)
    across = (noise[:, :-1] * noise[:, 1:]).mean() / noise.var()
    assert abs(float(across)) < 0.03  # from one control step to the next
    locked = execute(Disturbance(action_noise=0.5, action_delay=2, locked_action=1), quiet[0])
    assert not locked[..., 1].any()
    assert locked[..., 0].all()  # the wind also blows while the first action is on its way


def test_noise_is_added_to_what_arrives() -> None:
    actions, world = draw_actions(), Disturbance(action_gain=0.5, action_delay=1)
    noise = execute(Disturbance(action_noise=0.5), torch.zeros_like(actions))
    blown = execute(world.model_copy(update={"action_noise": 0.5}), actions)
    torch.testing.assert_close(blown, execute(world, actions) + noise)


@settings(max_examples=50)
@given(world=disturbances, lengths=chunkings, seed=st.integers(0, 2**63 - 1))
def test_the_same_seed_gives_the_same_episode_in_chunks_of_any_length(
    world: Disturbance, lengths: list[int], seed: int
) -> None:
    env, actions = DisturbedEnv(Notebook(), world, UNIT), draw_actions()
    (whole,) = play(env, actions, [STEPS], seed)
    play(env, draw_actions(1), [1, 5], seed + 1)  # leaves other noise and other actions behind
    parts = play(env, actions, lengths, seed)
    assert torch.equal(whole.obs_path, torch.cat([part.obs_path for part in parts]))
    assert torch.equal(whole.track_path, torch.cat([part.track_path for part in parts]))
    assert torch.equal(whole.obs, parts[-1].obs)


def test_other_seeds_bring_other_noise_and_one_kind_does_not_change_the_other() -> None:
    actions = draw_actions()
    gust, fog = Disturbance(action_noise=0.5), Disturbance(obs_noise=0.1)
    both = Disturbance(action_noise=0.5, obs_noise=0.1)
    assert not torch.equal(execute(gust, actions, seed=0), execute(gust, actions, seed=1))
    assert torch.equal(execute(gust, actions), execute(both, actions))
    seen = [DisturbedEnv(Notebook(), world, UNIT).reset(3) for world in (fog, both)]
    assert torch.equal(*seen)


def test_obs_noise_is_in_units_of_each_component_and_on_nothing_but_what_is_seen() -> None:
    many = registry.make_env("GaussianMixture", {"start_std": 0.0}, 4000)
    env = DisturbedEnv(many, Disturbance(obs_noise=0.1), UNIT)
    first = env.reset(0)
    moved = env.step_chunk(torch.full((4000, 2, 2), 0.1))
    for blurred in (first, moved.obs_path[0] - moved.track_path[0], moved.obs - env.track()):
        torch.testing.assert_close(blurred.std(dim=0), 0.1 * UNIT, atol=0.005, rtol=0)
    assert float(moved.track_path[..., 0].std(dim=1).max()) < 1e-6
    assert torch.equal(moved.obs, moved.obs_path[-1])


@pytest.mark.parametrize("length", [1, 2, 7])
def test_ended_episodes_stay_as_they_are(length: int) -> None:
    world = Disturbance(action_noise=0.5, action_delay=1, obs_noise=0.1)
    env = DisturbedEnv(Walk(64), world, torch.ones(1))
    env.reset(0)
    moves = torch.ones(64, 9 - 9 % length, 1).split(length, dim=1)
    obs, ended = env.reset(0), torch.zeros(64, dtype=torch.bool)
    for chunk in moves:
        moved = env.step_chunk(chunk)
        assert torch.equal(moved.obs[ended], obs[ended])
        assert torch.equal(moved.obs_path[:, ended], obs[ended].expand(length, -1, -1))
        assert not moved.steps[ended].any()
        for row in (~ended & moved.done).nonzero()[:, 0].tolist():  # within the chunk, too
            last = moved.obs_path[moved.steps[row] - 1 :, row]
            assert torch.equal(last, last[:1].expand_as(last))
        running = ~(ended | moved.done)
        assert (moved.obs[running] != obs[running]).all()
        obs, ended = moved.obs, ended | moved.done
    assert ended.any()


def test_steps_are_recorded_inside_and_disturbed_outside() -> None:
    """CUDA graphs repeat what they recorded, so nothing that changes from step to step may be part of them."""
    world = Disturbance(action_noise=0.5, action_delay=1, obs_noise=0.1)

    def make(recorder: TapeRecorder | None) -> DisturbedEnv:
        graphed = graph_env(registry.make_env("AvoidPoint", {}, 4), recorder)
        assert isinstance(graphed, GraphedEnv) == (recorder is not None)
        return DisturbedEnv(graphed, world, torch.ones(graphed.spec.obs_dim))

    plain, recorded = make(None), make(TapeRecorder())
    for seed in (1, 2):
        actions = torch.rand(4, 40, 2, generator=torch.Generator().manual_seed(seed))
        for ours, theirs in zip(
            play(plain, actions, [4] * 10, seed), play(recorded, actions, [4] * 10, seed), strict=True
        ):
            assert_equal(ours, theirs)


def test_what_differs_is_told_in_one_line() -> None:
    assert Disturbance().describe() == ""
    assert Disturbance(action_delay=2, locked_action=0).describe() == "action_delay=2, locked_action=0"
