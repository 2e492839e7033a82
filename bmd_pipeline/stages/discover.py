"""The stage `discover`: which behaviours does the frozen policy have, and how are they commanded?"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from bmd_pipeline.artifacts.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.artifacts.lock import FolderLock
from bmd_pipeline.artifacts.provenance import require_run, write_run
from bmd_pipeline.artifacts.tracking import Tracker
from bmd_pipeline.config.finetune import RegulariserConfig
from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.modes.discovered import DOCUMENT, WEIGHTS, DiscoveredModes, make_modes
from bmd_pipeline.rl.agents import Agent, make_base_agent, make_commanded_agent
from bmd_pipeline.rl.holding import explore_held, fit_held
from bmd_pipeline.rl.rollout import Rollout, compute_information, merge_rollouts, roll_out
from bmd_pipeline.rl.seeding import seed_modes
from bmd_pipeline.rl.trainer import Trainer
from bmd_pipeline.seeds import derive_seed, make_generator
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.workbench import Workbench, episode_seeds, open_workbench, resolve_features


def discover(config: RunConfig, *, policy: Path, output: Path, seed: int, num_workers: int, reporter: Reporter) -> None:
    """Finds the modes of a pre-trained policy without labels, and writes them to `output`.

    Args:
        config: the run.
        policy: folder of the pre-trained policy.
        output: folder for modes.safetensors, modes.json, metrics.jsonl and run.json.
        seed: which repetition this is.
        num_workers: simulator processes.
        reporter: progress.

    Raises:
        ArtifactError: the policy is missing or does not fit.
        TrainingError: the policy has too few successes to cluster.
    """
    started = time.time()
    task = config.task.name
    require_run(policy, "pretrain", task)
    settings = config.discover
    with open_workbench(config, policy, settings.num_envs, num_workers, reporter) as bench:
        columns = resolve_features(bench.spec, settings.inference.features)
        torch.manual_seed(derive_seed(config.seed, "discover", task, seed, "weights"))
        modes = make_modes(settings, bench.policy, columns)
        modes.networks().to(bench.device)
        lock = FolderLock(Layout.state(output))
        with lock:
            (output / RUN_FILE).unlink(missing_ok=True)  # from here on the folder is not complete
            with Tracker(
                output / METRICS_FILE,
                config.execution.tracker,
                name=f"{task}-discover-{seed}",
                group=task,
                config=settings.model_dump(mode="json"),
            ) as tracker:
                _start(config, bench, modes, seed, reporter)
                if settings.strategy == "held":
                    _calibrate(config, bench, modes, seed)
                else:
                    _warm_up(config, bench, modes, seed, tracker, reporter)
                modes.findings |= _measure(config, bench, modes, seed)
            _tell(modes, reporter)
            modes.save(output, task, bench.policy)
            write_run(
                output,
                stage="discover",
                task=task,
                config=stage_slice(config, "discover"),
                config_hash=stage_hash(config, "discover"),
                seed=seed,
                inputs={"policy": policy},
                outputs=(WEIGHTS, DOCUMENT, METRICS_FILE),
                started=started,
                device=bench.device,
                extra={"findings": modes.findings},
            )
            lock.discard()


def _start(config: RunConfig, bench: Workbench, modes: DiscoveredModes, seed: int, reporter: Reporter) -> None:
    """Plays the base policy, and fits what can be fitted to it."""
    settings, task = config.discover, config.task.name
    generator = make_generator(config.seed, "discover", task, seed, "start", device=bench.device)
    base = make_base_agent(bench.policy)
    # every strategy needs the scale of the features; only seeding needs many episodes of the base policy
    episodes = settings.seed_episodes if settings.strategy == "seeded" else settings.num_envs
    played = _play_rounds(
        bench,
        base,
        modes,
        episode_seeds(config.seed, "discover", task, seed, episodes=episodes, num_envs=settings.num_envs),
        generator,
        reporter,
    )
    modes.inference.fit_scale(played.features[1:], played.alive)
    cluster_seed = derive_seed(config.seed, "discover", task, seed, "clusters")
    if settings.strategy == "seeded":
        clusters = seed_modes(modes, played, settings, cluster_seed, generator)
        sizes = torch.bincount(clusters.code[played.success], minlength=settings.num_modes)
        modes.findings["cluster_sizes"] = sizes.tolist()
    elif settings.strategy == "held":
        explorer = make_commanded_agent(bench.policy, modes)
        seeds = episode_seeds(
            config.seed,
            "discover",
            task,
            seed,
            "held",
            episodes=settings.seed_episodes,
            num_envs=settings.num_envs,
        )
        explored = explore_held(bench.env, explorer, settings, seeds, generator)
        modes.findings |= fit_held(modes, explored, settings, cluster_seed, generator)
        modes.findings["exploring_success_rate"] = float(explored.success.float().mean())
        reporter.log(
            f"held noise: {modes.findings['teaching_episodes']:.0f} of {len(explored.success)} episodes committed "
            f"clearly; the selector foresees {modes.findings['selector_accuracy']:.2f} of held-out outcomes"
        )


def _play_rounds(
    bench: Workbench,
    agent: Agent,
    modes: DiscoveredModes,
    seeds: list[int],
    generator: torch.Generator,
    reporter: Reporter,
) -> Rollout:
    code = torch.zeros(bench.env.num_envs, dtype=torch.int64, device=bench.device)
    rounds = []
    with reporter.progress("playing the base policy", len(seeds)) as progress:
        for seed in seeds:
            rounds.append(
                roll_out(
                    bench.env,
                    agent,
                    seed=seed,
                    code=code,
                    generator=generator,
                    explore=True,
                    feature_columns=modes.feature_columns,
                    keep_record=True,
                )
            )
            progress.advance(1)
    return merge_rollouts(rounds)


def _warm_up(
    config: RunConfig,
    bench: Workbench,
    modes: DiscoveredModes,
    seed: int,
    tracker: Tracker,
    reporter: Reporter,
) -> None:
    """E_wp rounds on the intrinsic reward alone (BMD, arXiv 2605.11387)."""
    settings, task = config.discover, config.task.name
    agent = make_commanded_agent(bench.policy, modes)
    modes.networks().requires_grad_(True)
    bench.policy.requires_grad_(False)
    trainer = Trainer(
        bench.env, agent, settings.ppo, settings, RegulariserConfig(floor=config.finetune.regulariser.floor)
    )
    with reporter.progress("discovering modes", settings.warmup_iterations) as progress:
        for iteration in range(settings.warmup_iterations):
            names = (task, seed, "warm-up", iteration)
            metrics = trainer.iterate(
                iteration=iteration,
                seed=derive_seed(config.seed, "discover", *names, "episodes"),
                generator=make_generator(config.seed, "discover", *names, "noise", device=bench.device),
                intrinsic_only=True,
                policy=iteration >= settings.ppo.value_warmup,
            )
            tracker.log(iteration + 1, metrics)
            progress.advance(
                1, M=round(metrics["modes/information"], 3), success=round(metrics["rollout/success_rate"], 3)
            )


def _calibrate(config: RunConfig, bench: Workbench, modes: DiscoveredModes, seed: int) -> None:
    """Held noise is taught by hindsight alone: its inference model must learn how well commands are obeyed."""
    played = _play_commanded(config, bench, make_commanded_agent(bench.policy, modes), seed, "calibration")
    histories = modes.inference.histories(played.features)[1:]
    modes.inference.calibrate(played.taken(histories), played.taken(played.code.expand_as(played.alive)))


def _measure(config: RunConfig, bench: Workbench, modes: DiscoveredModes, seed: int) -> dict[str, Any]:
    """Multimodality and success of the commanded, still frozen policy, on held-out episodes.

    The base policy plays the same episodes, so that the price of commanding it is not luck.
    """
    played = _play_commanded(config, bench, make_commanded_agent(bench.policy, modes), seed, "held-out")
    base = _play_commanded(config, bench, make_base_agent(bench.policy), seed, "held-out")
    mean, last = compute_information(modes.inference, played)
    log_q = modes.inference.log_prob(modes.inference.histories(played.features))
    episodes = torch.arange(played.code.numel(), device=bench.device)
    obeyed = log_q[played.alive.sum(dim=0), episodes].argmax(dim=-1) == played.code
    occupancy = modes.occupancy(played.features, played.alive.sum(dim=0), played.success)
    per_code = [played.code == k for k in range(modes.num_codes)]
    return {
        "heldout_episodes": played.code.numel(),
        "information": float(mean.mean()),
        "final_information": float(last.mean()),
        "information_bound": math.log(modes.num_codes),
        "base_success_rate": float(base.success.float().mean()),
        "success_rate": float(played.success.float().mean()),
        "success_rate_per_code": [float(played.success[own].float().mean()) for own in per_code],
        "obeyed": float(obeyed.float().mean()),
        "obeyed_per_code": [float(obeyed[own].float().mean()) for own in per_code],
    } | ({} if occupancy is None else {"occupancy": occupancy.tolist()})


def _play_commanded(config: RunConfig, bench: Workbench, agent: Agent, seed: int, purpose: str) -> Rollout:
    """Episodes of an agent as deployed, codes in equal numbers; initial states depend on the purpose alone."""
    settings, names = config.discover, (config.task.name, seed, purpose)
    seeds = episode_seeds(
        config.seed, "discover", *names, episodes=settings.heldout_episodes, num_envs=settings.num_envs
    )
    generator = make_generator(config.seed, "discover", *names, "noise", device=bench.device)
    rounds = []
    for index, episodes in enumerate(seeds):
        first = index * settings.num_envs
        code = torch.arange(first, first + settings.num_envs, device=bench.device) % agent.num_codes
        rounds.append(roll_out(bench.env, agent, seed=episodes, code=code, generator=generator, explore=False))
    return merge_rollouts(rounds)


def _tell(modes: DiscoveredModes, reporter: Reporter) -> None:
    """Says in plain words what was found."""
    found = modes.findings
    reporter.log(
        f"held-out multimodality M = {found['information']:.3f} nats per state, {found['final_information']:.3f} "
        f"at the end (at most {found['information_bound']:.3f}); commanded success {found['success_rate']:.3f}, "
        f"base {found['base_success_rate']:.3f}"
    )
    if found["information"] < modes.config.min_information:
        reporter.warn(
            f"no modes found: M = {found['information']:.3f} nats is below {modes.config.min_information}. The "
            "base policy behaves the same whatever code it is given, so there is nothing to preserve; "
            "collect more varied demonstrations, or try another discover.strategy"
        )
