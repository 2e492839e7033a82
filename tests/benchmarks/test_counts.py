"""What our own paths do, counted without a clock: passes of networks, and what a start imports."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from bmd_pipeline.config.schema import DiscoverConfig, FinetuneConfig, PolicyConfig
from bmd_pipeline.modes.modes import make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import FinetunedDenoiser, PolicyInput, SteeringAdapter
from bmd_pipeline.rl.agent import Agent, make_agent, make_base_agent
from bmd_pipeline.rl.ppo import PPO, Batch, Critic, standardise

DECISIONS, MINIBATCH = 64, 16


@pytest.fixture
def policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    made = DiffusionPolicy(PolicyConfig(horizon=4, n_action_steps=2, hidden_sizes=(8, 8)), obs_dim=2, action_dim=2)
    return made.requires_grad_(False).eval()


@contextmanager
def count_passes(networks: dict[str, nn.Module]) -> Iterator[Counter[str]]:
    """Forward passes of networks, by name."""
    passes: Counter[str] = Counter()

    def watch(name: str) -> Callable[..., None]:
        return lambda *_: passes.update([name])

    handles = [network.register_forward_hook(watch(name)) for name, network in networks.items()]
    yield passes
    for handle in handles:
        handle.remove()


def find_networks(agent: Agent) -> dict[str, nn.Module]:
    """What an agent acts with: its policy's denoiser, and what its adapters have of their own."""
    networks: dict[str, nn.Module] = {"frozen": agent.policy.denoiser}
    for adapter in agent.adapters:
        if isinstance(adapter, FinetunedDenoiser):
            networks["denoiser"] = adapter.policy.denoiser
        if isinstance(adapter, SteeringAdapter):
            networks["steering"] = adapter.steering
    return networks


def make(method: str, policy: DiffusionPolicy) -> Agent:
    config = DiscoverConfig.model_validate({"num_modes": 3, "steering": {"hidden_sizes": (8,)}})
    modes = make_modes(config, policy, (0, 1)) if method.endswith("-bmd") else None
    return make_agent(method, policy, modes, FinetuneConfig(), config.steering)


def draw_inputs(policy: DiffusionPolicy) -> PolicyInput:
    return PolicyInput(torch.randn(DECISIONS, policy.cond_dim), torch.zeros(DECISIONS, dtype=torch.int64))


CASES = {
    "pretrained": {"frozen": 2},
    "dppo": {"denoiser": 2},
    "dppo-bmd": {"denoiser": 2},
    "dsrl": {"frozen": 2, "steering": 1},
}
"""Passes per decision: the sampler takes two steps."""


@pytest.mark.parametrize("method", CASES)
def test_a_decision_takes_one_pass_per_denoising_step(method: str, policy: DiffusionPolicy) -> None:
    agent = make_base_agent(policy) if method == "pretrained" else make(method, policy)
    with count_passes(find_networks(agent)) as passes:
        agent.plan(draw_inputs(agent.policy), torch.Generator().manual_seed(0), explore=True)
    assert passes == CASES[method]


@pytest.mark.parametrize(("method", "expected"), [("dppo", {"denoiser": 2}), ("dsrl", {"steering": 1})])
def test_a_minibatch_takes_one_pass_of_each_network_that_learns(
    method: str, expected: dict[str, int], policy: DiffusionPolicy
) -> None:
    agent = make(method, policy)
    critic = Critic(policy.cond_dim, 0, 1, 1, (8,), sees_time=False)
    config = FinetuneConfig().ppo.model_copy(update={"epochs": 1, "minibatch_size": MINIBATCH, "learning_rate": 1e-9})
    ppo = PPO(agent, critic, config)
    inputs, generator = draw_inputs(policy), torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = agent.plan(inputs, generator, explore=True).draws
        batch = Batch(
            inputs=inputs,
            draws=draws,
            critic_inputs=inputs.cond,
            log_prob=agent.evaluate(draws, inputs)[0],
            advantage=standardise(torch.randn(DECISIONS)),
            returns=torch.randn(DECISIONS, 1),
        )
    with count_passes(find_networks(agent) | {"critic": critic}) as passes:
        ppo.update(batch, generator)
    updates = DECISIONS // MINIBATCH + 1  # the last step is checked once more
    assert passes == {name: updates * count for name, count in (expected | {"critic": 1}).items()}


def list_imported(code: str) -> set[str]:
    """Packages that a new process has imported after some code, without Python's own and private ones."""
    names = "{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nbefore = {names}\n{code}\nprint(*sorted({names} - before))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in done.stdout.splitlines()[-1].split() if not name.startswith("_")}


def test_importing_the_package_imports_nothing_else() -> None:
    assert list_imported("import bmd_pipeline") == {"bmd_pipeline"}


COMMAND_LINE = {
    "bmd_pipeline",
    *("typer", "rich", "shellingham", "annotated_doc", "markdown_it", "mdurl", "pygments"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection", "attr", "yaml"),
    "cython_runtime",  # yaml's
}
"""What a command line and its settings are made of."""


def test_help_imports_what_a_command_line_needs_and_no_more() -> None:
    assert list_imported("from bmd_pipeline.cli.main import main\nmain(['--help'])") <= COMMAND_LINE
