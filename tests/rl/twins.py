"""Pairs of agents and trainers that are the same but for their recordings, and what must then be the same too."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from bmd_pipeline.config.schema import (
    DiscoverConfig,
    FinetuneConfig,
    PolicyConfig,
    PPOConfig,
    SteeringConfig,
)
from bmd_pipeline.environments.base import VectorTask
from bmd_pipeline.errors import DivergenceError
from bmd_pipeline.methods import METHODS, method_family, uses_modes
from bmd_pipeline.modes.modes import make_modes
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.adapters import PolicyInput
from bmd_pipeline.rl.agent import Agent, make_agent, make_commanded_agent
from bmd_pipeline.rl.graphs import GraphedEnv, GraphRecorder, graph_env
from bmd_pipeline.rl.trainer import Trainer, pack_trainer, unpack_trainer
from bmd_pipeline.tasks import registry

REINFORCED = [method for method in METHODS if method_family(method) != "fbc"]
"""Methods that learn by PPO."""
TAUGHT = "taught"
"""The frozen policy under its codes, beside the methods of fine-tuning."""
PUBLISHED = "res-bmd published"
"""The published form, in which a steering policy plans and a residual corrects."""
STOPPING: dict[str, object] = {"target_kl": 5e-4}
"""Settings under which every method's policy stops in the middle of its updates."""


def make_agents(method: str, device: str, target_kl: float = 1.0) -> tuple[Agent, Agent]:
    """The same agent twice."""
    torch.manual_seed(0)
    shape = PolicyConfig(horizon=4, n_action_steps=2, n_obs_steps=2, hidden_sizes=(16, 16))
    policy = DiffusionPolicy(shape, obs_dim=2, action_dim=2)
    policy.fit_normalisers(torch.rand(64, 8) * 2 - 1, torch.randn(64, 4))
    policy.requires_grad_(False).eval()
    settings = {
        "num_modes": 3,
        "form": "published" if method == PUBLISHED else "coded",
        "inference": {"hidden_sizes": (16,)},
        "steering": {"hidden_sizes": (16,)},
    }
    modes = make_modes(DiscoverConfig.model_validate(settings), policy, (0, 1))
    if modes.coded is not None:  # codes that were taught something
        with torch.no_grad():
            for table in modes.coded.denoiser.code_tables:
                table.normal_()
    if method == TAUGHT:
        agent = make_commanded_agent(policy, modes)
    else:
        config = FinetuneConfig.model_validate(
            {
                "ppo": {"target_kl": target_kl},
                "residual": {"progressive_iterations": 4, "learning_rate": 2e-3},
                "denoiser": {"learning_rate": 5e-4, "clip_ratio": 0.1, "target_kl": target_kl, "kl_weight": 0.1},
            }
        )
        name = method.removesuffix(" published")
        coded = modes if uses_modes(name) else None
        agent = make_agent(name, policy, coded, config, SteeringConfig(hidden_sizes=(16,)))
    twins = copy.deepcopy(agent).to(device), copy.deepcopy(agent).to(device)
    for twin in twins:
        if twin.modes is not None:
            twin.modes.networks().to(device)
    return twins


def draw_inputs(agent: Agent, rows: int, generator: torch.Generator) -> PolicyInput:
    """Random inputs of a policy."""
    device = generator.device
    return PolicyInput(
        torch.randn(rows, agent.policy.cond_dim, generator=generator, device=device),
        torch.randint(agent.num_codes, (rows,), generator=generator, device=device),
    )


def make_native(task: str, num_envs: int, device: str) -> VectorTask:
    """A native task with graded rewards."""
    env = registry.make_env(task, {"reward": "shifted"}, num_envs, device=device)
    assert isinstance(env, VectorTask)
    return env


def play_both(plain: VectorTask, graphed: GraphedEnv) -> list[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Plays both tasks with the same actions for three episodes and beyond; returns what each step gave."""
    device = plain.device
    generator = torch.Generator(device).manual_seed(0)
    drift = torch.rand(plain.num_envs, 1, 2, generator=generator, device=device) * 2 - 1
    seen, ended = [], 0
    for seed in range(3):
        seen.append(({"obs": plain.reset(seed)}, {"obs": graphed.reset(seed)}))
        for size in [4] * (plain.spec.horizon // 4) + [1]:
            actions = drift + 0.5 * torch.randn(plain.num_envs, size, 2, generator=generator, device=device)
            seen.append((vars(plain.step_chunk(actions)), vars(graphed.step_chunk(actions))))
            seen.append(({"track": plain.track()}, {"track": graphed.track()}))
        ended += int(plain.ended.sum())
    assert ended > plain.num_envs
    return seen


def make_trainers(
    method: str,
    recorder: GraphRecorder,
    *,
    device: str = "cpu",
    num_envs: int = 12,
    minibatch_size: int = 32,
    **ppo: object,
) -> tuple[Trainer, Trainer]:
    """The same trainer twice, the second one with recordings."""
    settings = {"minibatch_size": minibatch_size, "value_hidden_sizes": (16,), "target_kl": 1.0}
    config = PPOConfig.model_validate(settings | ppo)
    made = []
    for agent, own in zip(make_agents(method, device, config.target_kl), (None, recorder), strict=True):
        torch.manual_seed(2)
        env = graph_env(registry.make_env("GaussianMixture", {}, num_envs, device=device), own)
        made.append(Trainer(env, agent, FinetuneConfig(ppo=config), recorder=own))
    optimizers = [trainer.learner.optimizers["policy_optimizer"] for trainer in made]
    for group in optimizers[0].param_groups:  # rounds as the other one does
        group["fused"] = optimizers[1].param_groups[0]["fused"]
    return made[0], made[1]


def iterate(trainer: Trainer, iteration: int, **options: bool) -> dict[str, float]:
    """One iteration whose draws depend on its number alone."""
    generator = torch.Generator(trainer.env.device).manual_seed(iteration)
    return trainer.iterate(iteration=iteration, seed=iteration, generator=generator, **options)


def roll_back_and_resume(trainer: Trainer) -> None:
    """Trains with an iteration that is rolled back, and one that a resumed run makes again."""
    learn = trainer.learn
    learnt = 0

    def diverge(played: Any, **options: Any) -> dict[str, float]:
        nonlocal learnt
        learnt += 1
        metrics = learn(played, **options)
        if learnt == 3:
            raise DivergenceError("it ran away")
        return metrics

    trainer.learn = diverge  # type: ignore[method-assign]
    for iteration in range(4):
        trainer.remember()
        generator = torch.Generator(trainer.env.device).manual_seed(iteration)
        trainer.iterate(iteration=iteration, seed=iteration, generator=generator)
    assert trainer.rollbacks == 1
    saved = pack_trainer(trainer)
    iterate(trainer, 8)
    unpack_trainer(trainer, *saved)
    iterate(trainer, 9)
