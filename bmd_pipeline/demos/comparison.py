"""Whether demonstrations and a task show the same observations, column by column."""

import torch
from torch import Tensor

from bmd_pipeline.demos.store import Demos
from bmd_pipeline.environments.base import TaskEnv

STARTS = 32
"""Fewest episodes of the task that are begun."""
FEWEST = 8
"""Fewest demonstrations that say how widely starts are spread."""
STEPS = 20
"""Control steps that are played of each: enough for what rests at the start to move."""
FACTOR = 5.0
"""How many times as wide the wider spread of starts is, if they are not of one kind."""
SHOWN = 3
"""Columns that a message names."""


def compare_with_task(demos: Demos, env: TaskEnv) -> str:
    """Says in one line in which columns observations of demonstrations and of the task differ; empty if in none.

    Starts are compared with starts: their means, and how widely they are spread. Then the task is given the first
    actions of demonstrations, and what it shows is compared with the range of all that was demonstrated, and with how
    far those actions led there.
    """
    obs, action, first = (torch.from_numpy(x) for x in (demos.obs, demos.action, demos.episode_starts))
    last = torch.from_numpy(demos.episode_ends) - 1
    paths, demonstrated = [], []
    for seed in range(-(-STARTS // env.num_envs)):
        chosen = (seed * env.num_envs + torch.arange(env.num_envs)) % demos.num_episodes
        # an observation after a demonstration's last one is none that it could have shown
        steps = torch.minimum(torch.arange(STEPS), (last - first)[chosen, None])  # (num_envs, STEPS)
        rows = first[chosen, None] + steps
        start = env.reset(seed)[None]
        moved = env.step_chunk(action[rows].to(env.device))
        paths.append(torch.cat([start, moved.obs_path]).cpu()[steps.T, torch.arange(env.num_envs)])
        demonstrated.append(obs[rows.T])
    played = torch.cat(paths, dim=1)  # (STEPS, M, obs_dim)
    low, high = torch.aminmax(obs, dim=0)
    width = torch.maximum(high - low, 1e-3 * torch.maximum(low.abs(), high.abs()))
    width = torch.where(width > 1e-5, width, (1e-3 * width.max()).clamp(min=1e-5))  # a column of zeros has none
    beyond = torch.maximum(low - played.amin(dim=0), played.amax(dim=0) - high) / width  # (M, obs_dim)
    ours, theirs = _describe_spread(obs[first]), _describe_spread(played[0])
    found = []
    for column in range(obs.shape[1]):
        (mean, std), (other, other_std) = (spread[:, column].tolist() for spread in (ours, theirs))
        wider, narrower = max(std, other_std), min(std, other_std)
        apart = abs(mean - other) > 3.0 * (std + other_std) + 0.1 * float(width[column])
        is_scaled = len(first) >= FEWEST and 0.0 < FACTOR * narrower < wider and wider > 1e-3 * float(width[column])
        if apart or is_scaled:
            found.append(
                f"column {column} of the observation is {mean:.3g} ± {std:.2g} at the start of demonstrations, "
                f"{other:.3g} ± {other_std:.2g} in the task"
            )
        elif float(beyond[:, column].median()) > 1.0:
            shown = played[..., column]
            found.append(
                f"column {column} of the observation lies between {float(low[column]):.3g} and "
                f"{float(high[column]):.3g} in demonstrations, {float(shown.min()):.3g} and {float(shown.max()):.3g} "
                "in the task"
            )
    way, other_way = (_measure_ways(paths) for paths in (torch.cat(demonstrated, dim=1), played))
    moves = way > 1e-3 * width
    if not found and bool(moves.any()) and bool((FACTOR * other_way < way)[moves].all()):
        less = float((way / other_way)[moves].min())
        return (
            f"the first {STEPS} actions of demonstrations led at least {less:.2g} times farther there than in the "
            "task; are they in its units?"
        )
    more = f"; and {len(found) - SHOWN} columns more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _describe_spread(values: Tensor) -> Tensor:
    """Mean and standard deviation (2, dim) of values (N, dim)."""
    std, mean = torch.std_mean(values.double(), dim=0, correction=0)
    return torch.stack([mean, std])


def _measure_ways(paths: Tensor) -> Tensor:
    """How far each column (dim,) gets from its start on paths (STEPS, M, dim), as a root mean square."""
    return (paths - paths[0]).double().square().mean(dim=(0, 1)).sqrt()
