"""Single decisions of an agent."""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.rl.adapters import Draws, PolicyInput
from bmd_pipeline.rl.agent import Agent


def draw_inputs(count: int, num_codes: int = 3, cond_dim: int = 4) -> PolicyInput:
    """Random conditions, under all codes in turn."""
    cond = torch.randn(count, cond_dim, generator=torch.Generator().manual_seed(3))
    return PolicyInput(cond, torch.arange(count) % num_codes)


def decide(agent: Agent, inputs: PolicyInput, generator: torch.Generator, explore: bool = True) -> tuple[Tensor, Draws]:
    """Plans a chunk and takes its first actions."""
    return agent.act(agent.plan(inputs, generator, explore), 0, inputs, generator, explore)
