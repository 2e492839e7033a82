"""PPO's losses by hand, and what its updates reach."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bmd_pipeline.config.schema import FinetuneConfig, PPOConfig, RegulariserConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.errors import TaskError, TrainingError
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl import ppo
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import make_agent
from bmd_pipeline.rl.ppo import Batch, compute_policy_loss, compute_value_loss, standardise, standardise_groups
from bmd_pipeline.rl.trainer import Trainer
from tests.rl.decisions import decide
from tests.rl.host_reads import count_reads

CLIP = torch.tensor(0.2)


def test_clipped_surrogate_by_hand() -> None:
    ratio = torch.tensor([[1.5], [0.5], [1.5], [0.5]])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    loss, kl = compute_policy_loss(ratio.log(), torch.zeros(4, 1), advantage, torch.ones(1), CLIP)
    # min(ρA, clip(ρ)A) = 1.2, 0.5, −1.5, −0.8
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    assert float(kl) == pytest.approx(float((ratio - 1 - ratio.log()).mean()))


def test_one_stray_draw_is_not_taken_for_a_policy_that_ran_away() -> None:
    log_prob = torch.zeros(256, 1, requires_grad=True)
    shift = torch.zeros(256, 1)
    shift[0] = 12.0
    loss, kl = compute_policy_loss(log_prob + shift, torch.zeros(256, 1), -torch.ones(256), torch.ones(1), CLIP)
    assert float(kl) == pytest.approx((math.exp(3) - 4) / 256)
    loss.backward()
    assert log_prob.grad is not None
    assert float(log_prob.grad[0]) == 0.0
    torch.testing.assert_close(log_prob.grad[1:], torch.full((255, 1), 1 / 256))
    _, everywhere = compute_policy_loss(shift[:1] - 24.0, torch.zeros(1, 1), torch.ones(1), torch.ones(1), CLIP)
    assert float(everywhere) > 5.0  # what has become impossible still counts in full


def test_factors_are_clipped_one_by_one() -> None:
    log_prob = torch.tensor([[0.3, -0.3]])  # their product has ratio 1 and would hide both
    clip = torch.tensor([0.2, 0.1])
    loss, kl = compute_policy_loss(log_prob, torch.zeros(1, 2), torch.tensor([1.0]), torch.tensor([1.0, 0.5]), clip)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 * math.exp(-0.3)))
    assert kl.tolist() == pytest.approx([math.exp(0.3) - 1.3, math.exp(-0.3) - 0.7], rel=1e-4)
    blamed, _ = compute_policy_loss(log_prob, torch.zeros(1, 2), torch.tensor([-1.0]), torch.tensor([1.0, 0.5]), clip)
    assert float(blamed) == pytest.approx(math.exp(0.3) + 0.5 * 0.9)


def test_value_loss_by_hand() -> None:
    value, returns = torch.tensor([[2.0, 0.0], [4.0, 0.0]]), torch.tensor([[3.0, 0.0], [4.0, 2.0]])
    assert float(compute_value_loss(value, returns)) == pytest.approx(0.5 * (1.0 / 2 + 4.0 / 2))


def test_standardise() -> None:
    x = standardise(torch.tensor([1.0, 2.0, 3.0]))
    assert x.tolist() == pytest.approx([-1.0, 0.0, 1.0])


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-100.0, 100.0, width=32)), min_size=1, max_size=40))
def test_standardising_groups_is_standardising_each_by_itself(rows: list[tuple[int, float]]) -> None:
    """Group 5 is always empty; one of a single member has nothing to compare it with, and counts nothing."""
    group = torch.tensor([code for code, _ in rows])
    value = torch.tensor([number for _, number in rows], dtype=torch.float64)
    x = torch.stack([value, 3.0 - 2.0 * value.flip(0)], dim=1)
    found = standardise_groups(x, group, 6)
    for code in group.unique():
        mine = group == code
        for stream in range(2):
            own = x[mine, stream]
            expected = standardise(own) if len(own) > 1 else torch.zeros(1, dtype=torch.float64)
            torch.testing.assert_close(found[mine, stream], expected, rtol=1e-5, atol=1e-5)


def test_one_group_is_all_together() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = standardise_groups(x, torch.zeros(50, dtype=torch.int64), 3)
    torch.testing.assert_close(found, torch.stack([standardise(x[:, 0]), standardise(x[:, 1])], dim=1))


@pytest.fixture(autouse=True)
def never_roll_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmd_pipeline.rl.trainer.MAX_ROLLBACKS", 0)


def _trainer(env: TaskEnv, policy: DiffusionPolicy, modes: DiscoveredModes | None, **ppo: object) -> Trainer:
    torch.manual_seed(2)
    steering = SteeringConfig(hidden_sizes=(16,))
    method = "dsrl-bmd" if modes else "dsrl"
    agent = make_agent(method, policy, modes, FinetuneConfig(), steering)
    config = PPOConfig.model_validate({"minibatch_size": 32, "value_hidden_sizes": (16,)} | ppo)
    return Trainer(env, agent, FinetuneConfig(ppo=config))


def _iterate(trainer: Trainer, **options: bool) -> dict[str, float]:
    return trainer.iterate(iteration=0, seed=1, generator=torch.Generator().manual_seed(1), **options)


def test_an_update_of_the_published_form_leaves_what_was_discovered_as_it_is(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    modes = modes_of(form="published")
    trainer = _trainer(env, policy, modes)
    frozen = {name: value.clone() for name, value in policy.state_dict().items()}
    assert modes.steering is not None
    discovered = {name: value.clone() for name, value in modes.steering.state_dict().items()}
    parts = {
        "steering": trainer.agent.adapters[0],
        "critic": trainer.learner.critic,
        "inference": modes.inference,
    }
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    metrics = _iterate(trainer)
    assert metrics["losses/policy_steps"] > 0
    for name, part in parts.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True)), name
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in frozen.items())
    assert all(torch.equal(value, modes.steering.state_dict()[name]) for name, value in discovered.items())


def test_information_is_measured_without_the_floor_that_the_reward_has(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """A mean of clamped log-ratios is no lower bound of the mutual information."""
    trainer = _trainer(env, policy, modes_of(form="published"))  # codes in equal numbers
    assert trainer.learner.inference is not None
    with torch.no_grad():  # sure of code 0, whatever is played
        last = [layer for layer in trainer.learner.inference.modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([30.0, 0.0, 0.0]))
    metrics = _iterate(trainer)
    expected = (torch.tensor([30.0, 0.0, 0.0]).log_softmax(dim=0).mean() + math.log(3)).item()
    assert metrics["modes/final_information"] == pytest.approx(expected, rel=1e-4)
    assert expected < trainer.learner.regulariser_config.floor * 2 / 3


@pytest.mark.parametrize(
    ("form", "steps", "learns"),
    [("coded", None, False), ("coded", 3, True), ("published", None, True), ("published", 0, False)],
)
def test_the_inference_model_learns_as_long_as_hindsight_has_not_taught_it(
    env: TaskEnv,
    policy: DiffusionPolicy,
    modes_of: Callable[..., DiscoveredModes],
    form: str,
    steps: int | None,
    learns: bool,
) -> None:
    modes = modes_of(form=form)
    agent = make_agent("dsrl-bmd", policy, modes, FinetuneConfig(), SteeringConfig(hidden_sizes=(16,)))
    ppo = PPOConfig(minibatch_size=32, value_hidden_sizes=(16,))
    trainer = Trainer(env, agent, FinetuneConfig(ppo=ppo, regulariser=RegulariserConfig(inference_steps=steps)))
    before = [value.clone() for value in modes.inference.parameters()]
    metrics = _iterate(trainer)
    changed = any(not torch.equal(a, b) for a, b in zip(before, modes.inference.parameters(), strict=True))
    assert changed == learns == ("losses/inference" in metrics)


@pytest.mark.parametrize(("form", "streams"), [("coded", 2), ("published", 1)])
def test_the_coded_form_weighs_advantages_and_the_published_one_rewards(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes], form: str, streams: int
) -> None:
    trainer = _trainer(env, policy, modes_of(form=form))
    played = trainer.play(iteration=0, seed=1, generator=torch.Generator().manual_seed(1))
    reward, measured = trainer.learner._streams(played, played.reward, intrinsic_only=False)
    assert trainer.learner.critic.num_streams == reward.shape[2] == streams
    intrinsic = reward[..., 1] if streams == 2 else (reward[..., 0] - played.reward) / 0.5
    per_code = [float(intrinsic.sum(dim=0)[played.code == code].mean()) for code in range(3)]  # all count the same
    assert measured["modes/intrinsic_return"] == pytest.approx(sum(per_code) / 3, rel=1e-4)
    if streams == 2:
        assert torch.equal(reward[..., 0], played.reward)
        # telescoped: whatever an episode passed through, it earns what its end tells of the code
        assert measured["modes/intrinsic_return"] == pytest.approx(measured["modes/final_information"], abs=1e-5)


@pytest.mark.parametrize("form", ["coded", "published"])
def test_the_intrinsic_reward_can_be_kept_for_success(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes], form: str
) -> None:
    """In half of the episodes, which fail, nothing but the environment pays; in the others nothing changes."""
    trainer = _trainer(env, policy, modes_of(form=form))
    played = trainer.play(iteration=0, seed=1, generator=torch.Generator().manual_seed(1))
    played.success.copy_(torch.arange(len(played.success)) % 2 == 0)
    always = trainer.learner._streams(played, played.reward, intrinsic_only=False)[0]
    trainer.learner.regulariser_config = RegulariserConfig(success_only=True)
    gated = trainer.learner._streams(played, played.reward, intrinsic_only=False)[0]
    alone = torch.stack([played.reward, torch.zeros_like(played.reward)], dim=-1)[..., : gated.shape[-1]]
    assert not torch.equal(always, alone)
    assert torch.equal(gated[:, played.success], always[:, played.success])
    assert torch.equal(gated[:, ~played.success], alone[:, ~played.success])


def test_advantages_are_standardised_within_each_code(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    """What a code earns more than others do is no merit of its actions, unless codes are pooled."""
    generator = torch.Generator().manual_seed(0)
    code = torch.arange(300) % 3
    advantage = torch.randn(300, 2, generator=generator) + 5.0 * code[:, None]
    made = _trainer(env, policy, modes_of())
    mixed = made.learner._mix(advantage, code)
    expected = standardise_groups(advantage, code, 3) @ torch.tensor([1.0, 0.5])
    torch.testing.assert_close(mixed, standardise(expected))
    made.learner.balance_codes = False
    pooled = made.learner._mix(advantage, code)
    assert [float(mixed[code == k].mean()) for k in range(3)] == pytest.approx([0.0] * 3, abs=1e-5)
    assert float(pooled[code == 0].mean()) < -1.0 < 1.0 < float(pooled[code == 2].mean())


def test_critic_warm_up_leaves_the_policy_alone(env: TaskEnv, policy: DiffusionPolicy) -> None:
    trainer = _trainer(env, policy, None)
    before = [p.clone() for p in trainer.agent.trainable()[0]]
    critic = [p.clone() for p in trainer.learner.critic.parameters()]
    _iterate(trainer, policy=False)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.agent.trainable()[0], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(critic, trainer.learner.critic.parameters(), strict=True))


def test_the_policy_stops_at_the_kl_bound(env: TaskEnv, policy: DiffusionPolicy) -> None:
    bold = _iterate(_trainer(env, policy, None, learning_rate=0.1, target_kl=1e-4))
    meek = _iterate(_trainer(env, policy, None, learning_rate=1e-6, target_kl=1e-4))
    assert bold["losses/policy_steps"] < meek["losses/policy_steps"]
    assert bold["losses/approx_kl"] > 1.5e-4 > meek["losses/approx_kl"] > 0.0
    assert (bold["losses/kl_stopped"], meek["losses/kl_stopped"]) == (1.0, 0.0)


def _policy_rate(trainer: Trainer) -> float:
    return float(trainer.learner.ppo.optimizer.param_groups[0]["lr"])


def test_an_adaptive_learning_rate_falls_at_the_kl_bound_and_rises_to_where_it_began(
    env: TaskEnv, policy: DiffusionPolicy
) -> None:
    trainer = _trainer(env, policy, None, learning_rate=0.1, target_kl=0.01, learning_rate_schedule="adaptive")
    steps = []
    for _ in range(30):
        before = _policy_rate(trainer)
        metrics = _iterate(trainer)
        assert metrics["losses/learning_rate"] == before
        steps.append(metrics["losses/policy_steps"])
        if metrics["losses/kl_stopped"] and steps[-1] < 2:
            assert _policy_rate(trainer) == pytest.approx(max(before / 1.5, 1e-3))
    assert sum(steps[-10:]) > sum(steps[:10]), "smaller steps let it take more of them"
    assert trainer.learner.ppo.optimizer.param_groups[-1]["lr"] == 1e-3, "the critic has no KL divergence"

    patient = _trainer(env, policy, None, learning_rate=1e-6, target_kl=1.0, learning_rate_schedule="adaptive")
    patient.learner.ppo.optimizer.param_groups[0]["lr"] = 5e-7
    for expected in (7.5e-7, 1e-6, 1e-6):
        _iterate(patient)
        assert _policy_rate(patient) == pytest.approx(expected)


def test_a_constant_learning_rate_stays(env: TaskEnv, policy: DiffusionPolicy) -> None:
    trainer = _trainer(env, policy, None, learning_rate=0.1, target_kl=1e-4)
    _iterate(trainer)
    assert _policy_rate(trainer) == 0.1


def test_an_adaptive_learning_rate_waits_while_only_the_critic_learns(env: TaskEnv, policy: DiffusionPolicy) -> None:
    trainer = _trainer(env, policy, None, learning_rate=1e-3, learning_rate_schedule="adaptive")
    trainer.learner.ppo.optimizer.param_groups[0]["lr"] = 5e-4
    _iterate(trainer, policy=False)
    assert _policy_rate(trainer) == 5e-4


def test_discovery_ignores_the_environments_reward(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: Callable[..., DiscoveredModes]
) -> None:
    def trained(pay: float) -> list[torch.Tensor]:
        env.pay.fill_(pay)  # type: ignore[attr-defined]
        trainer = _trainer(env, policy, modes_of(form="published"))
        _iterate(trainer, intrinsic_only=True)
        return list(trainer.agent.adapters[0].parameters())

    rich, poor = trained(100.0), trained(0.0)
    assert all(torch.equal(a, b) for a, b in zip(rich, poor, strict=True))


def test_a_reward_that_is_not_finite_stops_training(env: TaskEnv, policy: DiffusionPolicy) -> None:
    env.pay.fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(TaskError, match="the reward was nan"):
        _iterate(_trainer(env, policy, None))


def test_updates_raise_what_pays(env: TaskEnv, policy: DiffusionPolicy) -> None:
    """A bandit: the advantage is the first steered coordinate, so its mean must rise and no other one's."""
    trainer = _trainer(env, policy, None)
    agent, generator = trainer.agent, torch.Generator().manual_seed(0)
    cond = torch.randn(512, 4, generator=generator)
    inputs = PolicyInput(cond, torch.zeros(512, dtype=torch.int64))
    seen = torch.zeros(512, 7)  # cond 4, track 2, time 1
    for _ in range(10):
        with torch.no_grad():
            _, draws = decide(agent, inputs, generator)
            batch = Batch(
                inputs,
                draws,
                seen,
                agent.evaluate(draws, inputs)[0],
                standardise(draws["0.u"][:, 0]),
                torch.zeros(512, 1),
            )
        trainer.learner.ppo.update(batch, generator)
    mean = agent.adapters[0].steering(cond, inputs.code)[0].mean(dim=0)
    mean = mean.detach()
    assert float(mean[0]) > 0.3
    assert float(mean[1:].abs().max()) < 0.5 * float(mean[0])


def test_a_policy_that_runs_away_is_refused(
    env: TaskEnv, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ppo, "MAX_GRAD_NORM", 100.0)
    monkeypatch.setattr(ppo, "MAX_KL", 0.5)
    with pytest.raises(TrainingError, match=r"the approximate KL is .* nats, more than 0\.5"):
        _iterate(_trainer(env, policy, None, learning_rate=1.0))
    _iterate(_trainer(env, policy, None))


def test_the_last_step_is_looked_at_too(env: TaskEnv, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step only, after which no loss is computed any more."""
    monkeypatch.setattr(ppo, "MAX_GRAD_NORM", 100.0)
    trainer = _trainer(env, policy, None, learning_rate=1.0, epochs=1, minibatch_size=100_000)
    with pytest.raises(TrainingError, match="the approximate KL is"):
        _iterate(trainer)


def test_values_that_explode_are_refused(
    env: TaskEnv, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ppo, "MAX_GRAD_NORM", 1000.0)
    trainer = _trainer(env, policy, None, value_learning_rate=1.0, epochs=20)
    message = r"the critic's squared error is .*, more than .*; lower finetune\.ppo\.value_learning_rate"
    with pytest.raises(TrainingError, match=message):  # noqa: PT012
        for iteration in range(20):
            trainer.iterate(iteration=iteration, seed=1, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("part", ["policy", "critic"])
def test_weights_that_are_not_finite_are_refused(env: TaskEnv, policy: DiffusionPolicy, part: str) -> None:
    """NaN compares false with any bound, so it must not pass for a small KL."""
    trainer = _trainer(env, policy, None)
    update = trainer.learner.ppo.update

    def poison(batch: Batch, generator: torch.Generator, *, policy: bool = True) -> dict[str, float]:
        network = trainer.agent.adapters[0] if part == "policy" else trainer.learner.critic
        with torch.no_grad():
            next(network.parameters()).fill_(torch.nan)
        return update(batch, generator, policy=policy)

    trainer.learner.ppo.update = poison  # type: ignore[method-assign]
    with pytest.raises(TrainingError):
        _iterate(trainer)


def test_an_update_reads_from_the_device_once_per_minibatch(env: TaskEnv, policy: DiffusionPolicy) -> None:
    """Each read makes the host wait for the device."""

    def reads(epochs: int) -> tuple[int, int]:
        trainer = _trainer(env, policy, None, epochs=epochs, target_kl=1.0, learning_rate=1e-5)
        stepped: list[bool] = []
        step = trainer.learner.ppo._step

        def count(going: list[bool]) -> Tensor:
            stepped.append(any(going))
            return step(going)

        trainer.learner.ppo._step = count  # type: ignore[method-assign]
        return count_reads("bmd_pipeline.rl.ppo", lambda: _iterate(trainer)), len(stepped)

    (few_reads, few_steps), (many_reads, many_steps) = reads(1), reads(5)
    assert few_steps >= 2
    assert many_reads - few_reads == many_steps - few_steps
