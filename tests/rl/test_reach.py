"""What each method trains: its gradients reach that and nothing else, and a frozen policy stays bit-identical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import FinetuneConfig, SteeringConfig
from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.modes.modes import DiscoveredModes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.agent import Agent, make_agent, make_commanded_agent
from bmd_pipeline.rl.trainer import Trainer
from tests.rl.decisions import decide, draw_inputs

MakeModes = Callable[..., DiscoveredModes]
STEERING = ("stack.0.steering.",)


@dataclass(frozen=True)
class Case:
    """A method, the form of its codes (None: it has none), and whose parameters it trains."""

    method: str
    form: str | None
    trained: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method}-{self.form}" if self.form else self.method

    @property
    def rewarded(self) -> tuple[str, ...]:
        """What learns beside the policy: the published inference model, but not the one that hindsight taught."""
        return ("modes.inference.network.",) if self.form == "published" else ()


CASES = [
    Case("dsrl", None, STEERING),
    Case("dppo", None, ("stack.1.policy.denoiser.",)),
    Case("res", None, ("stack.2.",)),
    Case("dsrl-bmd", "published", STEERING),
    Case("dppo-bmd", "published", (*STEERING, "stack.1.policy.denoiser.")),
    Case("res-bmd", "published", (*STEERING, "stack.2.")),
    Case("dsrl-bmd", "coded", STEERING),
    Case("dppo-bmd", "coded", ("stack.1.policy.denoiser.",)),
    Case("res-bmd", "coded", ("stack.2.",)),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def agent_of(case: Case, policy: DiffusionPolicy, modes_of: MakeModes) -> Agent:
    torch.manual_seed(0)
    modes = modes_of(form=case.form) if case.form else None
    if modes is not None:
        modes.networks().requires_grad_(False)  # as loading leaves them
    config = FinetuneConfig.model_validate({"residual": {"progressive_iterations": 0}})
    return make_agent(case.method, policy, modes, config, SteeringConfig(hidden_sizes=(16,)))


def snapshot(agent: Agent) -> dict[str, Tensor]:
    """Every number that the agent acts or is rewarded by."""
    found = {name: value.clone() for name, value in agent.state_dict().items()}
    if agent.modes is not None:
        found |= {f"modes.{name}": value.clone() for name, value in agent.modes.networks().state_dict().items()}
    return found


@cases
def test_gradients(case: Case, policy: DiffusionPolicy, modes_of: MakeModes) -> None:
    agent = agent_of(case, policy, modes_of)
    generator = torch.Generator().manual_seed(0)
    inputs = draw_inputs(6, agent.num_codes)
    with torch.no_grad():
        _, draws = decide(agent, inputs, generator)
    log_prob, entropy, _ = agent.evaluate(draws, inputs)
    assert log_prob.shape == (6, len(agent.factor_weights))
    (log_prob.sum() + entropy.sum()).backward()
    reached = {name for name, parameter in agent.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in agent.named_parameters() if name.startswith(case.trained)}
    listed = {id(parameter) for group in agent.trainable() for parameter in group}
    assert listed == {id(parameter) for name, parameter in agent.named_parameters() if name in reached}
    assert agent.modes is None or all(parameter.grad is None for parameter in agent.modes.networks().parameters())


@cases
def test_an_iteration(case: Case, env: TaskEnv, policy: DiffusionPolicy, modes_of: MakeModes) -> None:
    agent = agent_of(case, policy, modes_of)
    ppo = {"minibatch_size": 16, "value_hidden_sizes": (16,), "entropy_weight": 0.01, "target_kl": 1.0}
    config = FinetuneConfig.model_validate({"ppo": ppo})
    trainer = Trainer(env, agent, config)
    before, frozen = snapshot(agent), {name: value.clone() for name, value in policy.state_dict().items()}
    for iteration in range(2):
        trainer.iterate(iteration=iteration, seed=iteration, generator=torch.Generator().manual_seed(iteration))
    changed = {name for name, value in snapshot(agent).items() if not torch.equal(before[name], value)}
    assert changed == {name for name in before if name.startswith((*case.trained, *case.rewarded))}
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in frozen.items())


def test_discovery_trains_its_steering_and_inference(
    env: TaskEnv, policy: DiffusionPolicy, modes_of: MakeModes
) -> None:
    modes = modes_of(form="published")
    agent = make_commanded_agent(policy, modes)
    config = FinetuneConfig.model_validate({"ppo": {"minibatch_size": 16, "value_hidden_sizes": (16,)}})
    trainer = Trainer(env, agent, config)
    before = snapshot(agent)
    trainer.iterate(iteration=0, seed=0, generator=torch.Generator().manual_seed(0), intrinsic_only=True)
    changed = {name for name, value in snapshot(agent).items() if not torch.equal(before[name], value)}
    trained = (*STEERING, "modes.steering.", "modes.inference.network.")
    assert changed == {name for name in before if name.startswith(trained)}
