"""Filtered behaviour cloning on a task of one step: go left or right, neither too far nor too near."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from bmd_pipeline.config.schema import (
    DiscoverConfig,
    FinetuneConfig,
    PolicyConfig,
    PretrainConfig,
    RunConfig,
    SteeringConfig,
)
from bmd_pipeline.environments.base import TaskSpec, VectorTask
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.modes.inference import draw_balanced
from bmd_pipeline.modes.modes import CodedClusters, DiscoveredModes, make_modes
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import make_agent, make_base_agent
from bmd_pipeline.rl.cloning import BATCH_SIZE, MEMORY, FilteredCloner
from bmd_pipeline.rl.rollout import Rollout
from bmd_pipeline.rl.trainer import Trainer, pack_trainer, unpack_trainer
from tests.rl.decisions import decide, draw_inputs

SHAPE = PolicyConfig(horizon=2, n_action_steps=1, n_obs_steps=1, hidden_sizes=(32, 32), ddim_steps=5)
FIRST, LAST = 0.4, 0.6


class Doors(VectorTask):
    """One step from 0 to wherever the action says; a door on either side lets through."""

    spec = TaskSpec("Doors", 1, 1, ("place",), ("place", "place"), 1)

    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.place = torch.zeros(num_envs, 1)

    def _reset(self, seed: int) -> None:
        self.place = torch.zeros(self.num_envs, 1)

    def _advance(self, action: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.place = torch.where(active[:, None], action, self.place)
        through = ((self.place.abs() > FIRST) & (self.place.abs() < LAST)).squeeze(1)
        return through.float(), through, through

    def _observe(self) -> Tensor:
        return self.place.clone()

    def track(self) -> Tensor:
        return self.place.clone()


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    """Goes anywhere, so that one episode of five succeeds."""
    torch.manual_seed(0)
    stacked, chunk = torch.randn(2048, 1), torch.rand(2048, 2) * 2 - 1
    made = DiffusionPolicy(SHAPE, 1, 1)
    made.fit_normalisers(chunk, stacked)
    config = PretrainConfig(policy=SHAPE, batch_size=256, learning_rate=5e-3)
    cloner = Cloner(made, config, chunk, stacked, torch.Generator().manual_seed(1))
    for _ in range(400):
        cloner.train_step()
    return cloner.ema.average.requires_grad_(False).eval()


def two_sides(policy: DiffusionPolicy, **discover: Any) -> DiscoveredModes:
    """A code for each door, of which the policy has not been taught anything."""
    torch.manual_seed(1)
    values = {"num_modes": 2, "cluster_points": 1, "inference": {"hidden_sizes": (8,)}}
    modes = make_modes(DiscoverConfig.model_validate(values | discover), policy, (0,))
    modes.clusters = CodedClusters(policy.encode(torch.tensor([[-0.5], [0.5]])), torch.arange(2))
    return modes


def make_trainer(policy: DiffusionPolicy, modes: DiscoveredModes | None = None, num_envs: int = 256) -> Trainer:
    config = FinetuneConfig.model_validate({"cloning": {"steps": 40, "learning_rate": 2e-3}})
    agent = make_agent("fbc-bmd" if modes else "fbc", policy, modes, config, SteeringConfig())
    return Trainer(Doors(num_envs), agent, config)


def iterate(trainer: Trainer, iteration: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(iteration)
    return trainer.iterate(iteration=iteration, seed=iteration, generator=generator)


def cloner_of(trainer: Trainer) -> FilteredCloner:
    assert isinstance(trainer.learner, FilteredCloner)
    return trainer.learner


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_begins_as_the_policy_and_explores_as_dppo_does(policy: DiffusionPolicy) -> None:
    agent, inputs = make_trainer(policy).agent, draw_inputs(6, 1, cond_dim=1)
    dppo = make_agent("dppo", policy, None, FinetuneConfig(), SteeringConfig())
    for explore, other in ((False, make_base_agent(policy)), (True, dppo)):
        (ours, draws), (theirs, _) = (
            decide(each, inputs, torch.Generator().manual_seed(0), explore) for each in (agent, other)
        )
        assert torch.equal(ours, theirs)
    assert draws["1.chunk"].shape == (6, 2), "the whole chunk, of which one action is executed"


@pytest.mark.parametrize("coded", [False, True])
def test_success_rises_in_a_few_iterations_and_codes_learn_their_own_behaviour(
    policy: DiffusionPolicy, coded: bool
) -> None:
    frozen = copy.deepcopy(policy.state_dict())
    trainer = make_trainer(policy, two_sides(policy) if coded else None)
    seen = [iterate(trainer, iteration) for iteration in range(15)]
    success = [metrics["rollout/success_rate"] for metrics in seen]
    assert success[0] < 0.35
    assert min(success[-3:]) > 0.75
    assert seen[-1]["losses/policy_steps"] == 40
    if coded:
        assert seen[0]["modes/obeyed"] < 0.65
        assert seen[-1]["modes/obeyed"] > 0.95
    assert same(frozen, dict(policy.state_dict()))


def rollout(ids: Tensor, success: Tensor, active: Tensor) -> Rollout:
    """Episodes whose decisions planned chunks that bear a number each (T, N)."""
    length, count = ids.shape
    chunk = ids[..., None].float().expand(length, count, 2)
    place = torch.zeros(length + 1, count, 1)
    none = torch.zeros(count, dtype=torch.int64)
    return Rollout(
        cond=place,
        decision_track=place,
        feature_columns=(),
        active_mask=active,
        reward=torch.zeros(length, count),
        truncated=none.bool(),
        success=success,
        dropped=none.bool(),
        reach=torch.zeros(count, 1),
        length=none,
        track=place,
        code=torch.arange(count) % 2,
        draws={"1.chunk": chunk},
    )


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 3)), min_size=1, max_size=4), max_size=8)
)
def test_it_keeps_what_succeeded_as_its_code_says_in_the_last_rollouts(
    policy: DiffusionPolicy, played: list[list[tuple[bool, bool, int]]]
) -> None:
    learner, generator = cloner_of(make_trainer(policy, two_sides(policy), num_envs=4)), torch.Generator()
    learner.steps = 1
    expected: list[list[tuple[int, int]]] = []
    for index, episodes in enumerate(played):
        success, own, length = (torch.tensor(each) for each in zip(*episodes, strict=True))
        ids = 100 * index + torch.arange(3)[:, None] * 10 + torch.arange(len(episodes))
        active = torch.arange(3)[:, None] < length
        metrics = learner.learn(rollout(ids, success, active), own, generator)
        expected.append(
            [
                (100 * index + 10 * t + n, n % 2)
                for t in range(3)
                for n, (s, o, m) in enumerate(episodes)
                if s and o and t < m
            ]
        )
        kept = [pair for last in expected[-MEMORY:] for pair in last]
        assert list(zip(learner.kept["chunk"][:, 1].tolist(), learner.kept["code"].tolist(), strict=True)) == kept
        assert metrics["losses/policy_steps"] == bool(kept)


def test_its_loss_is_that_of_pre_training_under_the_codes(policy: DiffusionPolicy) -> None:
    trainer = make_trainer(policy, two_sides(policy))
    learner = cloner_of(trainer)
    learner.steps = 1
    played = trainer.play(iteration=0, seed=0, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(learner.policy)
    own = torch.ones_like(played.success)
    metrics = learner.learn(played, own, torch.Generator().manual_seed(5))
    won, generator = played.success, torch.Generator().manual_seed(5)
    (rows,) = draw_balanced(played.code[won], BATCH_SIZE, 1, generator)
    t, noise = before.draw_corruption(BATCH_SIZE, generator)
    chunk, cond = played.draws["1.chunk"][0, won], played.cond[0, won]
    expected = before.denoising_loss(chunk[rows], cond[rows], t, noise, played.code[won][rows])
    assert metrics["losses/cloning"] == pytest.approx(expected.item(), rel=1e-6)


def test_without_a_success_the_policy_stays_as_it_is(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(policy)
    monkeypatch.setattr(Doors, "_advance", lambda self, action, active: (active.float(), ~active, ~active))
    before = pack_trainer(trainer)[0]
    metrics = iterate(trainer, 0)
    assert (metrics["losses/policy_steps"], metrics["losses/cloning"], metrics["rollout/cloned_chunks"]) == (0, 0, 0)
    assert same(before, pack_trainer(trainer)[0])


def test_it_goes_on_bit_for_bit_with_what_it_kept(policy: DiffusionPolicy) -> None:
    straight, other = (make_trainer(policy, two_sides(policy)) for _ in range(2))
    for iteration in range(3):
        iterate(straight, iteration)
    saved = pack_trainer(straight)
    unpack_trainer(other, *saved)
    for trainer in (straight, other):
        iterate(trainer, 3)
    assert same(pack_trainer(straight)[0], pack_trainer(other)[0])
    assert set(cloner_of(other).kept["age"].tolist()) == {0, 1, 2, 3}


def test_a_rollout_that_is_learnt_again_is_kept_once(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(policy)
    learner = cloner_of(trainer)
    loss, asked = learner.policy.denoising_loss, iter([True])
    monkeypatch.setattr(
        learner.policy, "denoising_loss", lambda *rest: loss(*rest) * (torch.nan if next(asked, False) else 1.0)
    )
    metrics = iterate(trainer, 0)
    assert trainer.rollbacks == 1
    assert metrics["rollout/cloned_chunks"] == len(learner.kept["age"]) == round(256 * metrics["rollout/success_rate"])
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


def test_codes_of_the_published_form_are_refused(policy: DiffusionPolicy) -> None:
    with pytest.raises(
        ArtifactError, match=r"^method fbc-bmd clones codes into the denoiser: it needs discover\.form="
    ):
        make_trainer(policy, two_sides(policy, form="published"))
    run = {"task": {"name": "GaussianMixture"}, "methods": ("fbc", "fbc-bmd")}
    assert RunConfig.model_validate(run).methods == ("fbc", "fbc-bmd")
    with pytest.raises(ValidationError, match=r"discover\.form must be coded for fbc-bmd, got published"):
        RunConfig.model_validate(run | {"discover": {"form": "published"}})
