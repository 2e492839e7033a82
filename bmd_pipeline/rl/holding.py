"""Discovery in a few noise dimensions held over the episode.

Ours, for contact-rich tasks: noise drawn anew for every chunk averages out there, and a steering policy fitted
to it finds nothing. Episodes are explored with slow noise coordinates held until the behaviour is committed;
their clusters name the codes, and a selector learns which noise brings about which code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bmd_pipeline.config.discover import DiscoverConfig
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.modes.discovered import DiscoveredModes
from bmd_pipeline.modes.selector import train_selector
from bmd_pipeline.rl.agents import Agent
from bmd_pipeline.rl.rollout import Rollout, merge_rollouts, roll_out
from bmd_pipeline.rl.seeding import Clusters, fit_inference
from bmd_pipeline.tasks.base import TaskEnv


def explore_held(
    env: TaskEnv, agent: Agent, config: DiscoverConfig, seeds: list[int], generator: torch.Generator
) -> Rollout:
    """Plays episodes with held noise of several widths, shared out over the environments.

    Args:
        env: the task.
        agent: the frozen policy behind held noise.
        config: widths of the noise.
        seeds: initial states of each round.
        generator: draws.
    """
    if agent.modes is None or agent.modes.selector is None:
        raise TrainingError("exploring with held noise needs modes of the strategy 'held'")
    scales = config.commit.exploration_scales
    width = agent.modes.selector.noise_dim
    code = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    rounds = []
    widths = torch.tensor(scales, device=env.device)
    width_of = widths[torch.arange(env.num_envs, device=env.device) % len(scales)]
    for seed in seeds:
        held = torch.randn(env.num_envs, width, generator=generator, device=env.device)
        held = held * width_of[:, None]
        rounds.append(roll_out(env, agent, seed=seed, code=code, generator=generator, explore=True, held=held))
    return merge_rollouts(rounds)


def fit_held(
    modes: DiscoveredModes, played: Rollout, clusters: Clusters, config: DiscoverConfig, generator: torch.Generator
) -> dict[str, float]:
    """Learns which held noise leads to which behaviour; every episode that committed clearly to one teaches.

    Args:
        modes: networks, trained in place; a code for each cluster.
        played: what `explore_held` returned.
        clusters: what the episodes do.
        config: discovery settings.
        generator: draws batches.

    Returns:
        how many episodes taught, and the selector's held-out loss (nats) and accuracy.

    Raises:
        TrainingError: too few episodes that committed.
    """
    if modes.selector is None:
        raise TrainingError("fitting held noise needs modes of the strategy 'held'")
    teaches = _committed(played) & (clusters.margin > config.commit.min_margin)
    if int(teaches.sum()) < 10 * config.commit.folds:
        raise TrainingError(
            f"only {int(teaches.sum())} of {len(teaches)} explored episodes committed to a behaviour: raise "
            "discover.seed_episodes or lower discover.commit.distance"
        )
    fit_inference(modes.inference, played, clusters.code, teaches, config, generator)
    loss, accuracy = train_selector(
        modes.selector,
        played.cond[0][teaches],
        played.held[teaches],
        clusters.code[teaches],
        generator,
    )
    return {"teaching_episodes": float(teaches.sum()), "selector_loss": loss, "selector_accuracy": accuracy}


def _committed(played: Rollout) -> Tensor:
    """(N,) whether the held noise was let go before the episode ended."""
    return (played.alive & ~played.holding).any(dim=0)
