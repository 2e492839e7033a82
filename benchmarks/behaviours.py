"""How many behaviours are found among a base policy's successful episodes, against the true modes.

The base policy plays as many episodes as discovery would; their tracks are clustered by density at
several least shares, and by k-means told the true number. The truth is looked at afterwards.

    python -m benchmarks.behaviours AvoidPoint [--seed 0] [--policy results/AvoidPoint/policy] [--shares 0.0025 0.01]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from bmd_pipeline.artifacts.layout import Layout
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.modes.clustering import cluster_by_density, cluster_episodes, resample_track
from bmd_pipeline.modes.discovered import make_modes
from bmd_pipeline.rl.agents import make_base_agent
from bmd_pipeline.rl.rollout import merge_rollouts, roll_out
from bmd_pipeline.seeds import make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.workbench import episode_seeds, open_workbench, resolve_features
from bmd_pipeline.tasks.registry import load_labellings

MOST = 256
"""Groups that density may find."""


def play(config: RunConfig, policy: Path, workers: int) -> tuple[Tensor, Tensor, int]:
    """Successful episodes of the base policy.

    Returns:
        resampled tracks (N, points * features), true modes (N,), and how many episodes were played.
    """
    settings = config.discover
    with open_workbench(config, policy, settings.num_envs, workers, Reporter("quiet"), disturbed=False) as bench:
        columns = resolve_features(bench.spec, settings.inference.features)
        generator = make_generator(config.seed, "evaluate", "behaviours", device=bench.device)
        seeds = episode_seeds(
            config.seed,
            "evaluate",
            "behaviours",
            config.task.name,
            episodes=settings.seed_episodes,
            num_envs=settings.num_envs,
        )
        agent = make_base_agent(bench.policy)
        code = torch.zeros(settings.num_envs, dtype=torch.int64, device=bench.device)
        played = merge_rollouts(
            [
                roll_out(
                    bench.env,
                    agent,
                    seed=seed,
                    code=code,
                    generator=generator,
                    explore=True,
                    feature_columns=columns,
                )
                for seed in seeds
            ]
        )
        inference = make_modes(settings, bench.policy, columns).inference.to(bench.device)
        inference.fit_scale(played.features[1:], played.alive)
        points = resample_track(inference.normalise(played.features), played.alive.sum(dim=0), settings.cluster_points)
        labelling = load_labellings(config.task.name)[0]
        mode = labelling.weigh(played.track, played.length, played.success).argmax(dim=1)
        return points[played.success].cpu(), mode[played.success].cpu(), len(mode)


def judge(found: Tensor, mode: Tensor) -> dict[str, float]:
    """Number of groups, and how well they agree with the true modes."""
    return {
        "groups": len(set(found.tolist())),
        "nmi": round(normalized_mutual_info_score(mode.numpy(), found.numpy()), 4),
        "ari": round(adjusted_rand_score(mode.numpy(), found.numpy()), 4),
    }


def main() -> None:
    """Plays, clusters, and prints one JSON row per way of clustering."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0025, 0.005, 0.01])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(arguments.task, preset="cpu", overrides={"seed": arguments.seed})
    points, mode, episodes = play(config, arguments.policy or Layout(Path()).policy(arguments.task), arguments.workers)
    sizes = np.bincount(mode.numpy())
    row = {"task": arguments.task, "seed": arguments.seed, "episodes": episodes, "successes": len(mode)}
    print(json.dumps(row | {"modes": int((sizes > 0).sum()), "smallest": int(sizes[sizes > 0].min())}))
    for share in arguments.shares:
        found, centres = cluster_by_density(points, share, MOST)
        nearest = torch.cdist(points, centres).argmin(dim=1) if len(centres) else found
        by_centre = {f"centres_{name}": value for name, value in judge(nearest, mode).items()}
        print(json.dumps({"clustering": "density", "share": share} | judge(found, mode) | by_centre))
    told, _ = cluster_episodes(points, int((sizes > 0).sum()), arguments.seed)
    print(json.dumps({"clustering": "kmeans, told the number"} | judge(told, mode)))


if __name__ == "__main__":
    main()
