"""Agents: what they draw, how likely it was, and how they are stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import Normal

from bmd_pipeline.config.schema import FinetuneConfig, SteeringConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.methods import METHODS
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import ResidualAction
from bmd_pipeline.rl.agent import (
    PLANNED,
    Agent,
    load_trained,
    make_agent,
    make_base_agent,
    make_commanded_agent,
    remove_steering,
    trained_state,
)
from tests.rl.decisions import decide, draw_inputs

MakeModes = Callable[..., DiscoveredModes]
STEERING = SteeringConfig(hidden_sizes=(16,))


def _agent(policy: DiffusionPolicy, modes: DiscoveredModes | None, method: str = "dsrl", **settings: object) -> Agent:
    torch.manual_seed(4)
    config = FinetuneConfig.model_validate(settings)
    return make_agent(f"{method}-bmd" if modes else method, policy, modes, config, STEERING)


def _fill_tables(modes: DiscoveredModes) -> None:
    """Gives the tables random numbers, so that codes differ."""
    assert modes.coded is not None
    with torch.no_grad():
        for table in modes.coded.denoiser.code_tables:
            table.normal_(generator=torch.Generator().manual_seed(6))


def test_the_base_agent_is_the_policy(policy: DiffusionPolicy) -> None:
    inputs = draw_inputs(6)
    actions, draws = decide(make_base_agent(policy), inputs, torch.Generator().manual_seed(0))
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert draws == {}
    torch.testing.assert_close(actions, policy.to_action(policy.sample(noise, inputs.cond))[:, :2])


def test_a_commanded_agent_is_the_coded_policy_under_its_codes(policy: DiffusionPolicy, modes_of: MakeModes) -> None:
    modes = modes_of()
    inputs = draw_inputs(6)
    plain, _ = decide(make_base_agent(policy), inputs, torch.Generator().manual_seed(0))
    untaught, _ = decide(make_commanded_agent(policy, modes), inputs, torch.Generator().manual_seed(0))
    assert torch.equal(plain, untaught)
    _fill_tables(modes)
    told, _ = decide(make_commanded_agent(policy, modes), inputs, torch.Generator().manual_seed(0))
    noise = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert modes.coded is not None
    expected = modes.coded.to_action(modes.coded.sample(noise, inputs.cond, code=inputs.code))
    torch.testing.assert_close(told, expected[:, :2])
    assert not torch.equal(told, plain)


@pytest.mark.parametrize("form", [None, "published", "coded"])
def test_log_prob_of_steering_matches_torch_distributions(
    policy: DiffusionPolicy, modes_of: MakeModes, form: str | None
) -> None:
    agent = _agent(policy, modes_of(form=form) if form else None)
    inputs = draw_inputs(6)
    _, draws = decide(agent, inputs, torch.Generator().manual_seed(0))
    mean, log_std = agent.adapters[0].steering(inputs.cond, inputs.code)
    expected = Normal(mean, log_std.exp())
    assert len(agent.factor_weights) == 1
    log_prob, entropy, _ = agent.evaluate(draws, inputs)
    torch.testing.assert_close(log_prob[:, 0], expected.log_prob(draws["0.u"]).sum(dim=1))
    torch.testing.assert_close(entropy, expected.entropy().sum(dim=1))


@pytest.mark.parametrize("form", [None, "published", "coded"])
@pytest.mark.parametrize("method", ["dsrl", "dppo", "res"])
def test_an_evaluation_has_a_column_per_draw(
    policy: DiffusionPolicy, modes_of: MakeModes, method: str, form: str | None
) -> None:
    agent = _agent(policy, modes_of(form=form) if form else None, method)
    inputs = draw_inputs(6)
    _, draws = decide(agent, inputs, torch.Generator().manual_seed(0))
    log_prob, entropy, _ = agent.evaluate(draws, inputs)
    steered = method == "dsrl" or form == "published"
    assert len(agent.factor_weights) == steered + {"dsrl": 0, "dppo": 2, "res": 1}[method]
    assert log_prob.shape == (6, len(agent.factor_weights))
    assert entropy.shape == (6,)
    assert (agent.target_entropy is not None) == steered


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_deployed_steering_policy_acts_by_its_mean_or_by_draws(policy: DiffusionPolicy, deterministic: bool) -> None:
    inputs, agent = draw_inputs(6), _agent(policy, None, deterministic=deterministic)
    first, second = (decide(agent, inputs, torch.Generator().manual_seed(s), False)[0] for s in (0, 1))
    assert torch.equal(first, second) is deterministic


# corrections at every control step ---------------------------------------------------------------------


def test_a_correction_sees_the_action_that_it_corrects(policy: DiffusionPolicy) -> None:
    agent = _agent(policy, None, "res", residual={"progressive_iterations": 0})
    residual = agent.residual
    assert residual is not None
    inputs, later = draw_inputs(6), draw_inputs(12)
    later = later.rows(torch.arange(6, 12))
    generator = torch.Generator().manual_seed(0)
    plan = agent.plan(inputs, generator, explore=True)
    for done, seen in ((0, inputs), (1, later)):
        actions, draws = agent.act(plan, done, seen, generator, explore=True)
        assert actions.shape == (6, 1, 2)
        planned = plan.chunk[:, 2 * done : 2 * done + 2]
        assert torch.equal(draws["2.action"], planned)
        corrected = planned + residual.scale * torch.tanh(draws["2.u"])
        torch.testing.assert_close(actions[:, 0], policy.to_action(corrected)[:, 0])
        mean = residual.network(torch.cat([seen.cond, planned], dim=1))
        expected = Normal(mean, residual.log_std.exp()).log_prob(draws["2.u"]).sum(dim=1)
        torch.testing.assert_close(agent.evaluate(draws, seen)[0][:, 0], expected)
        assert draws[PLANNED].tolist() == [float(done == 0)] * 6


def test_a_chunk_that_was_planned_earlier_is_no_draw_of_a_decision(
    policy: DiffusionPolicy, modes_of: MakeModes
) -> None:
    """In the published form a steering policy stands before the residual; in between its plans it drew nothing."""
    agent = _agent(policy, modes_of(form="published"), "res", residual={"progressive_iterations": 0})
    first, residual = agent.adapters[0], agent.residual
    assert residual is not None
    inputs, generator = draw_inputs(6), torch.Generator().manual_seed(0)
    plan = agent.plan(inputs, generator, explore=True)
    mean, log_std = first.steering(inputs.cond, inputs.code)
    drawn = Normal(mean, log_std.exp())
    own = Normal(torch.zeros(2), residual.log_std.exp()).entropy().sum()
    for done in (0, 1):
        _, draws = agent.act(plan, done, inputs, generator, explore=True)
        log_prob, entropy, _ = agent.evaluate(draws, inputs)
        counts = float(done == 0)
        torch.testing.assert_close(log_prob[:, 0], counts * drawn.log_prob(plan.draws["0.u"]).sum(dim=1))
        assert bool((log_prob[:, 1] != 0).all())
        torch.testing.assert_close(entropy, counts * drawn.entropy().sum(dim=1) + own)
        gradient = torch.autograd.grad(log_prob[:, 0].sum(), list(first.parameters()), retain_graph=True)
        assert any(bool((g != 0).any()) for g in gradient) == (done == 0)


# storing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_trained_weights_round_trip_without_the_frozen_policy(
    policy: DiffusionPolicy, modes_of: MakeModes, method: str
) -> None:
    def make() -> Agent:
        return _agent(policy, modes_of() if method.endswith("-bmd") else None, method.removesuffix("-bmd"))

    agent = make()
    with torch.no_grad():
        for group in agent.trainable():
            for parameter in group:
                parameter.add_(1.0)
    weights = trained_state(agent)
    trained = sum(parameter.numel() for group in agent.trainable() for parameter in group)
    stored = sum(value.numel() for name, value in weights.items() if name.startswith("adapters."))
    # the copy that is fine-tuned comes with its normalisers and its bounds
    copied = method.removesuffix("-bmd") in ("dppo", "fbc")
    scales = 2 * (4 + 2) + 2 * 8 if copied else 0
    basis = sum(
        b.numel() for name, b in agent.stack.named_buffers() if "basis" in name and f"adapters.{name}" in weights
    )
    assert stored == trained + scales + basis
    other = make()
    load_trained(other, weights)
    assert all(torch.equal(value, trained_state(other)[name]) for name, value in weights.items())
    inputs = draw_inputs(6, num_codes=agent.num_codes)
    first, second = (decide(each, inputs, torch.Generator().manual_seed(0))[0] for each in (agent, other))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError):
        load_trained(other, {"adapters.0.foreign": torch.zeros(1)})


def test_bmd_needs_modes(policy: DiffusionPolicy) -> None:
    with pytest.raises(ArtifactError, match="bmd-pipeline discover"):
        make_agent("dsrl-bmd", policy, None, FinetuneConfig(), STEERING)


def test_without_its_steering_dsrl_is_the_base_policy(policy: DiffusionPolicy) -> None:
    inputs = draw_inputs(6)
    agent = _agent(policy, None)
    bare, base = (
        decide(each, inputs, torch.Generator().manual_seed(0), explore=False)[0]
        for each in (remove_steering(agent), make_base_agent(policy))
    )
    assert torch.equal(bare, base)
    base_agent = make_base_agent(policy)
    assert remove_steering(base_agent) is base_agent, "a comparison plays policies without a steering policy too"


@pytest.mark.parametrize("method", ["dsrl", "dppo", "res"])
def test_methods_with_codes_act_on_the_coded_policy(policy: DiffusionPolicy, modes_of: MakeModes, method: str) -> None:
    """Before training every code does what the taught policy does under it, up to the steering's small start."""
    modes = modes_of()
    _fill_tables(modes)
    agent = _agent(policy, modes, method, residual={"progressive_iterations": 0})
    assert agent.policy is modes.coded
    inputs = draw_inputs(6)
    if method == "dsrl":
        agent = remove_steering(agent)
    told, _ = decide(agent, inputs, torch.Generator().manual_seed(0), explore=False)
    taught, _ = decide(make_commanded_agent(policy, modes), inputs, torch.Generator().manual_seed(0), False)
    bound = 0.05 if isinstance(agent.adapters[-1], ResidualAction) else 1e-5
    torch.testing.assert_close(told, taught[:, : told.shape[1]], rtol=0, atol=bound)
