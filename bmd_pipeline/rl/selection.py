"""Which iteration of fine-tuning is kept, and how its steering policy is read.

The last iteration is not always the best one, and the best one must not be picked by the episodes it is later
judged on: candidates play selection seeds, which evaluation never uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import get_args

import torch

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.rl.adapters.steering import Readout
from bmd_pipeline.rl.agents import Agent
from bmd_pipeline.rl.measuring import compute_code_success, compute_obeyed
from bmd_pipeline.rl.rollout import merge_rollouts, roll_out

LEVEL = 0.05
"""Chance at which some code of a policy that is as good as before counts as worse."""


@dataclass(frozen=True)
class Candidate:
    """What one iteration scored on the selection seeds.

    Attributes:
        iteration: after how many iterations.
        success_rate: share of successful episodes, codes played equally often.
        episodes: how many there were.
        success_per_code: success rate of each code's; empty for agents without codes.
        obeyed_per_code: share of each code's successes that show its own behaviour; empty for agents without codes.
        readout: how the steering policy acted; None without one.
    """

    iteration: int
    success_rate: float
    episodes: int
    success_per_code: tuple[float, ...] = ()
    obeyed_per_code: tuple[float, ...] = ()
    readout: Readout | None = None

    @property
    def obeyed(self) -> float:
        """Mean over codes; 1 for agents without codes."""
        return sum(self.obeyed_per_code) / len(self.obeyed_per_code) if self.obeyed_per_code else 1.0

    @property
    def dead_codes(self) -> tuple[int, ...]:
        """Codes that are obeyed no more often than chance, so that commanding them does nothing."""
        chance = 1.0 / max(1, len(self.obeyed_per_code))
        return tuple(code for code, share in enumerate(self.obeyed_per_code) if share <= chance)

    def compute_shortfall(self, start: Candidate, min_obeyed_share: float) -> float:
        """By how much it falls short of what fine-tuning began with; 0 if it qualifies.

        Codes must be obeyed at least `min_obeyed_share` times as often as at the start, and none may succeed
        significantly less often.

        Args:
            start: how the agent scored before fine-tuning.
            min_obeyed_share: 0 lets every iteration qualify.
        """
        if min_obeyed_share == 0.0 or not self.success_per_code:
            return 0.0
        shortfall = max(0.0, min_obeyed_share * start.obeyed - self.obeyed)
        num_codes = len(self.success_per_code)
        episodes = min(self.episodes, start.episodes) / num_codes
        significance = NormalDist().inv_cdf(1.0 - LEVEL / num_codes)  # Bonferroni: every code is a test
        for before, now in zip(start.success_per_code, self.success_per_code, strict=True):
            noise = math.sqrt((before * (1.0 - before) + now * (1.0 - now)) / episodes)
            shortfall += max(0.0, before - now - significance * noise)
        return shortfall

    def is_better_than(self, other: Candidate, start: Candidate, min_obeyed_share: float) -> bool:
        """Whether to keep this one instead of an earlier one.

        First what fine-tuning began with must not be lost; then success decides, ties going to the later one.
        """
        mine, theirs = (one.compute_shortfall(start, min_obeyed_share) for one in (self, other))
        if mine or theirs:
            return mine < theirs
        return self.success_rate >= other.success_rate


def score_candidate(
    env: TaskEnv, agent: Agent, iteration: int, seeds: list[int], generator: torch.Generator
) -> Candidate:
    """Plays the agent as it would be deployed, one episode per environment and seed, codes in equal numbers."""
    num_envs, codes = env.num_envs, agent.num_codes
    rounds = []
    for index, seed in enumerate(seeds):
        code = torch.arange(index * num_envs, (index + 1) * num_envs, device=env.device) % codes
        rounds.append(roll_out(env, agent, seed=seed, code=code, generator=generator, explore=False))
    played = merge_rollouts(rounds)
    success, episodes = float(played.success.float().mean()), len(played.success)
    if agent.modes is None:
        return Candidate(iteration, success, episodes, readout=agent.readout)
    per_code = tuple(compute_code_success(played, codes).tolist())
    obeyed = tuple(compute_obeyed(agent.modes, played).tolist())
    return Candidate(iteration, success, episodes, per_code, obeyed, agent.readout)


def choose_readout(
    env: TaskEnv,
    agent: Agent,
    iteration: int,
    seeds: list[int],
    generator: torch.Generator,
) -> Candidate:
    """Scores an agent by its mean and by draws on the same episodes, and leaves it with the better of both.

    The spread of a steering policy is exploration; but one that still resembles the prior has a mean that says nothing.

    Args:
        env: the task, without automatic reset.
        agent: who is scored; one without a steering policy is scored once.
        iteration: after how many iterations.
        seeds: one round of episodes each.
        generator: draws of the agent; both readouts get the same.
    """
    if agent.readout is None:
        return score_candidate(env, agent, iteration, seeds, generator)
    draws = generator.get_state()
    scored = []
    for readout in get_args(Readout):
        agent.readout = readout
        generator.set_state(draws)
        scored.append(score_candidate(env, agent, iteration, seeds, generator))
    mean, sample = scored
    prefers_mean = mean.success_rate * mean.obeyed >= sample.success_rate * sample.obeyed
    best = mean if prefers_mean else sample
    agent.readout = best.readout
    return best
