"""Which iteration of fine-tuning is kept, and how its steering policy is read.

The last iteration is not always the best one, and the best one must not be picked by the episodes it is later
judged on: candidates play selection seeds, which evaluation never uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch

from bmd_pipeline.rl.adapters.steering import Readout
from bmd_pipeline.rl.agents import Agent
from bmd_pipeline.rl.rollout import compute_information, roll_out
from bmd_pipeline.tasks.base import TaskEnv


@dataclass(frozen=True)
class Candidate:
    """What one iteration scored on the selection seeds.

    Attributes:
        iteration: after how many iterations.
        success_rate: share of successful episodes, codes played equally often.
        information: log q(z|h) − log p(z) at the episodes' ends, nats; 0 for agents without codes.
        dead_codes: codes whose episodes q can't tell from the others', so that commanding them does nothing.
        readout: how the steering policy acted; None without one.
    """

    iteration: int
    success_rate: float
    information: float
    dead_codes: tuple[int, ...] = ()
    readout: Readout | None = None

    def beats(self, other: Candidate, required_information: float) -> bool:
        """Whether to keep this one instead of an earlier one.

        First the codes must still tell behaviours apart; then success decides, ties going to the later one.
        """
        if min(self.information, other.information) < required_information:
            if other.information < required_information <= self.information:
                return True
            if self.information < required_information <= other.information:
                return False
            return self.information > other.information
        return self.success_rate >= other.success_rate


def compute_required_information(share: float, discovered: float) -> float:
    """Information in nats that an iteration needs to qualify.

    Args:
        share: of what was discovered; 0 lets every iteration qualify, also one whose codes mislead (below 0 nats).
        discovered: information at the episodes' ends that discovery measured.
    """
    return share * discovered if share > 0.0 else -math.inf


def score_candidate(
    env: TaskEnv, agent: Agent, iteration: int, seeds: list[int], generator: torch.Generator
) -> Candidate:
    """Plays the agent as it would be deployed, one episode per environment and seed."""
    code = torch.arange(env.num_envs, device=env.device) % agent.num_codes
    success, information = [], []
    for seed in seeds:
        played = roll_out(env, agent, seed=seed, code=code, generator=generator, explore=False)
        success.append(played.success.float().mean())
        if agent.modes is not None:
            information.append(compute_information(agent.modes.inference, played)[1])
    success_rate = float(torch.stack(success).mean())
    if not information:
        return Candidate(iteration, success_rate, 0.0, readout=agent.readout)
    told = torch.stack(information)  # (rounds, num_envs)
    per_code = {k: told[:, code == k].mean() for k in range(agent.num_codes) if bool((code == k).any())}
    dead = tuple(k for k, own in per_code.items() if not bool(own > 0.0))
    nats = float(torch.stack([one.mean() for one in information]).mean())
    return Candidate(iteration, success_rate, nats, dead, agent.readout)


def choose_readout(
    env: TaskEnv,
    agent: Agent,
    iteration: int,
    seeds: list[int],
    generator: torch.Generator,
    required_information: float,
) -> Candidate:
    """Scores an agent by its mean and by draws on the same episodes, and leaves it with the better of both.

    A steering policy with codes was fitted to what led to each behaviour, and its spread is exploration; one without
    may still resemble the prior, whose mean says nothing.

    Args:
        env: the task, without automatic reset.
        agent: who is scored; one without a steering policy is scored once.
        iteration: after how many iterations.
        seeds: one round of episodes each.
        generator: draws of the agent; both readouts get the same.
        required_information: what a candidate needs to qualify, as in `Candidate.beats`.
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
    best = mean if mean.beats(sample, required_information) else sample
    agent.readout = best.readout
    return best
