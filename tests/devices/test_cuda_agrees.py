"""What is computed on a CUDA device is what the CPU computes, to float32's rounding.

Random draws differ between devices by construction, so every comparison feeds both sides the same numbers.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from bmd_pipeline.config.schema import (
    DiscoverConfig,
    FinetuneConfig,
    PolicyConfig,
    PPOConfig,
    SteeringConfig,
)
from bmd_pipeline.methods import METHODS, uses_modes
from bmd_pipeline.modes.modes import make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent, make_agent
from bmd_pipeline.rl.ppo import PPO, Batch, compute_gae
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.tasks import registry
from tests.rl.decisions import decide
from tests.rl.twins import REINFORCED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS = 256
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
NATIVE = [
    (task, reward)
    for task, rewards in {"GaussianMixture": ("equal", "shifted"), "AvoidPoint": ("plain", "shifted")}.items()
    for reward in rewards
]


def make_policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    config = PolicyConfig(horizon=4, n_action_steps=2, n_obs_steps=2, hidden_sizes=(64, 64))
    policy = DiffusionPolicy(config, obs_dim=2, action_dim=2)
    policy.fit_normalisers(torch.rand(64, 8) * 2 - 1, torch.randn(64, 4))
    return policy.requires_grad_(False).eval()


def make_pair(method: str) -> tuple[Agent, Agent]:
    """The same agent on the CPU and on the device."""
    policy = make_policy()
    torch.manual_seed(1)
    config = DiscoverConfig.model_validate(
        {"num_modes": 3, "inference": {"hidden_sizes": (16,)}, "steering": {"hidden_sizes": (16,)}}
    )
    modes = make_modes(config, policy, (0, 1)) if uses_modes(method) else None
    if modes is not None and modes.coded is not None:
        for table in modes.coded.denoiser.code_tables:
            table.data.normal_()
    settings = FinetuneConfig.model_validate({"residual": {"progressive_iterations": 0}, "ppo": {"target_kl": 1.0}})
    agent = make_agent(method, policy, modes, settings, SteeringConfig(hidden_sizes=(16,)))
    twin = copy.deepcopy(agent).to("cuda")
    if twin.modes is not None:
        twin.modes.networks().to("cuda")
    return agent, twin


def draw_inputs(agent: Agent) -> PolicyInput:
    generator = torch.Generator().manual_seed(2)
    return PolicyInput(
        torch.randn(ROWS, agent.policy.cond_dim, generator=generator),
        torch.randint(agent.num_codes, (ROWS,), generator=generator),
    )


def on_device(inputs: PolicyInput, draws: Draws) -> tuple[PolicyInput, Draws]:
    seen = PolicyInput(inputs.cond.cuda(), inputs.code.cuda())
    return seen, {name: x.cuda() for name, x in draws.items()}


def test_sampling() -> None:
    policy = make_policy()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(ROWS, policy.noise_dim, generator=generator)
    cond = torch.randn(ROWS, policy.cond_dim, generator=generator)
    expected = policy.to_action(policy.sample(noise, cond))
    on_cuda = copy.deepcopy(policy).to("cuda")
    torch.testing.assert_close(
        on_cuda.to_action(on_cuda.sample(noise.cuda(), cond.cuda())).cpu(), expected, **TOLERANCE
    )


@pytest.mark.parametrize("method", REINFORCED)
def test_log_probabilities_and_their_gradients(method: str) -> None:
    agent, twin = make_pair(method)
    inputs = draw_inputs(agent)
    with torch.no_grad():
        _, draws = decide(agent, inputs, torch.Generator().manual_seed(4))
    log_prob, entropy, _ = agent.evaluate(draws, inputs)
    (log_prob.sum() + entropy.sum()).backward()
    theirs, spread, _ = twin.evaluate(*reversed(on_device(inputs, draws)))
    (theirs.sum() + spread.sum()).backward()
    torch.testing.assert_close(spread.detach().cpu(), entropy.detach(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(theirs.detach().cpu(), log_prob.detach(), rtol=1e-4, atol=1e-3)
    for ours, other in zip(agent.trainable(), twin.trainable(), strict=True):
        for mine, their in zip(ours, other, strict=True):
            if mine.grad is not None:
                scale = float(mine.grad.abs().max())
                torch.testing.assert_close(their.grad.cpu(), mine.grad, rtol=1e-3, atol=1e-4 * scale + 1e-7)


def test_generalised_advantages() -> None:
    generator = torch.Generator().manual_seed(5)
    reward, value = torch.randn(40, ROWS, 2, generator=generator), torch.randn(41, ROWS, 2, generator=generator)
    nonterminal = torch.rand(40, ROWS, generator=generator) > 0.05
    arguments: list[Tensor] = [
        reward,
        value,
        nonterminal,
        torch.zeros_like(nonterminal),
        torch.tensor([0.99, 0.9]),
        torch.tensor([0.95, 1.0]),
    ]
    for ours, theirs in zip(compute_gae(*arguments), compute_gae(*(x.cuda() for x in arguments)), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, **TOLERANCE)


@pytest.mark.parametrize("method", ["dsrl", "dppo-bmd", "res"])
def test_an_update_of_ppo(method: str) -> None:
    agent, twin = make_pair(method)
    inputs = draw_inputs(agent)
    with torch.no_grad():
        _, draws = decide(agent, inputs, torch.Generator().manual_seed(4))
        log_prob = agent.evaluate(draws, inputs)[0]
    generator = torch.Generator().manual_seed(6)
    config = PPOConfig(minibatch_size=ROWS, epochs=2, value_hidden_sizes=(16,), target_kl=1.0)  # the order is no matter
    results = []
    torch.manual_seed(7)
    critic_on_cpu = torch.nn.Linear(3, 1)
    critic_inputs = torch.randn(ROWS, 3, generator=generator)
    advantage, returns = torch.randn(ROWS, generator=generator), torch.randn(ROWS, 1, generator=generator)
    for who, device in ((agent, "cpu"), (twin, "cuda")):
        seen, drawn = (inputs, draws) if device == "cpu" else on_device(inputs, draws)
        critic = copy.deepcopy(critic_on_cpu).to(device)
        ppo = PPO(who, critic, config)  # type: ignore[arg-type]
        batch = Batch(
            seen,
            drawn,
            critic_inputs.to(device),
            log_prob.to(device),
            advantage.to(device),
            returns.to(device),
        )
        results.append(ppo.update(batch, torch.Generator(device).manual_seed(8)))
    for name, expected in results[0].items():
        assert results[1][name] == pytest.approx(expected, rel=1e-2, abs=1e-4), name
    for ours, theirs in zip(agent.trainable(), twin.trainable(), strict=True):
        for mine, their in zip(ours, theirs, strict=True):
            # Adam's first steps are as large where a gradient is rounding as where it is not
            close = torch.isclose(their.cpu(), mine, rtol=1e-3, atol=1e-4)
            assert close.float().mean() > 0.99


@pytest.mark.parametrize(("task", "reward"), NATIVE)
def test_dynamics_of_native_tasks(task: str, reward: str) -> None:
    """Actions lead from the same starts to the same places, rewards and ends."""
    cpu, cuda = (registry.make_env(task, {"reward": reward}, ROWS, device=device) for device in ("cpu", "cuda"))
    cpu.reset(0)
    cuda.reset(0)
    cuda.position = cpu.position.cuda()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(9)
    drift = torch.rand(ROWS, 1, 2, generator=generator) * 2 - 1  # goes somewhere, unlike noise alone
    for _ in range(8):
        actions = (drift + 0.5 * torch.randn(ROWS, 4, 2, generator=generator)).clamp(-1, 1)
        ours, theirs = cpu.step_chunk(actions), cuda.step_chunk(actions.cuda())
        for name in ("terminated", "success", "steps"):
            differ = (getattr(ours, name) != getattr(theirs, name).cpu()).float().mean()
            assert float(differ) < 0.01, name  # a walker on the very edge may fall to either side
        same = (ours.steps == theirs.steps.cpu()) & ~ours.done
        torch.testing.assert_close(theirs.obs.cpu()[same], ours.obs[same], **TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_training_stays_on_the_device(method: str) -> None:
    _, agent = make_pair(method)
    env = registry.make_env("GaussianMixture", {}, 96, device="cuda")
    settings = PPOConfig(minibatch_size=64, value_hidden_sizes=(16,))
    trainer = Trainer(env, agent, FinetuneConfig(ppo=settings))
    metrics = trainer.iterate(iteration=0, seed=1, generator=torch.Generator("cuda").manual_seed(1))
    assert metrics["losses/policy_steps"] > 0 or method not in REINFORCED  # nothing to clone
    tensors = [*agent.state_dict().values(), *trainer.learner.state()[0].values()]
    assert {x.device.type for x in tensors} == {"cuda"}
    assert all(bool(torch.isfinite(x).all()) for x in tensors if x.is_floating_point())
