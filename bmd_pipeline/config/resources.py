"""How much memory and time a job asks a cluster for, from its settings and measured costs.

The constants are rounded up from docs/results/resources.md, where the measurements stand. Memory is what the job was
seen to take with a quarter on top; a job that still runs out gets that much again with each attempt. Time is four
times what an idle core took, since cores differ and a stage that runs out of it saves, stops and goes on.
"""

from __future__ import annotations

import itertools
import math

from bmd_pipeline.config.ppo import PPOConfig
from bmd_pipeline.config.run import RunConfig

PROCESS_MB = 450
"""Python with torch, settings and networks of a native task."""
SIMULATOR_MB = 250
"""What a simulator adds to the process that steps it."""
WORKER_MB = 400
"""One worker process of a simulator."""
SCHEDULER_MB = 250
"""Snakemake, twice, around the stage in a cluster's job."""
TRANSITION_MB = 0.006
"""One decision in a rollout's buffer and in the batches made of it."""
STEP_MB = {"pretrain": 0.0005, "discover": 0.0001, "evaluate": 0.0004, "curve": 0.0004, "validation": 0.0004}
"""One control step of the episodes that a stage holds at once: demonstrations, seed episodes, what is judged."""
EVALUATION_MB = 2
"""One evaluation among those that are weighed together."""
MEMORY_MARGIN = 1.25

START_S = 30.0
"""Imports, reading and writing."""
STEPS_PER_S = {True: 1400.0, False: 50_000.0}
"""Control steps of one core, with and without a simulator."""
EXPERT_STEPS_PER_S = {True: 250.0, False: 10_000.0}
"""The same while a scripted expert plays."""
SAMPLE_S = 60e-6
"""One transition in one epoch of PPO."""
FIT_STEP_S = 0.01
"""One gradient step of discovery's networks."""
CLONING_STEP_S = 0.005
"""One step of behaviour cloning without its matrix products."""
FLOPS = 30e9
"""Float32 operations per second of one core in those products."""
EVALUATION_S = 0.25
"""Reading and resampling one evaluation."""
TIME_MARGIN = 4.0
MIN_MINUTES = 10

DEFAULT_HORIZON = 200
"""Steps of an episode where the task has no setting of that name."""
READERS = ("summarise", "compare", "verdict", "sweep", "grid", "pool", "report")
"""Stages that read evaluations and take seconds."""


def estimate_mem_mb(config: RunConfig, stage: str, *, threads: int, simulated: bool) -> int:
    """Memory of a stage's job in MB.

    Args:
        config: the run.
        stage: module below `stages`.
        threads: cores of the job; a simulator has as many workers, if more than one.
        simulated: whether a simulator steps the task.
    """
    total = float(PROCESS_MB + SCHEDULER_MB)
    if stage in READERS:
        total += EVALUATION_MB * _read_evaluations(config)
    else:
        steps = _horizon(config) * _held_episodes(config).get(stage, 0)
        total += steps * STEP_MB.get(stage, 0.0)
        envs = {"discover": config.discover.num_envs, "finetune": config.finetune.num_envs}
        total += _decisions(config) * envs.get(stage, 0) * TRANSITION_MB
        if simulated and stage != "pretrain":
            total += SIMULATOR_MB if threads == 1 else threads * WORKER_MB
    return math.ceil(total * MEMORY_MARGIN / 100) * 100


def estimate_minutes(config: RunConfig, stage: str, *, threads: int, simulated: bool) -> int:
    """Time limit of a stage's job in minutes; arguments as in `estimate_mem_mb`."""
    step_s = 1 / (STEPS_PER_S[simulated] * threads)
    seconds = START_S
    if stage == "collect":
        seconds += config.collect.num_episodes * _horizon(config) / (EXPERT_STEPS_PER_S[simulated] * threads)
    elif stage == "pretrain":
        widths = config.pretrain.policy.hidden_sizes
        weights = 100 * widths[0] + sum(one * other for one, other in itertools.pairwise(widths))
        product_s = 6 * config.pretrain.batch_size * weights / (FLOPS * threads)
        seconds += config.pretrain.iterations * (CLONING_STEP_S + product_s)
    elif stage == "discover":
        settings = config.discover
        episodes = 3 * (settings.seed_episodes + settings.heldout_episodes)  # the base policy's, and each code's
        fits = settings.steering_fit_steps + settings.inference_fit_steps
        fits += settings.commit.folds * settings.commit.selector_steps if settings.strategy == "held" else 0
        seconds += episodes * _horizon(config) * step_s + fits * FIT_STEP_S
        if settings.strategy != "held":
            seconds += settings.warmup_iterations * _iteration_s(config, settings.num_envs, settings.ppo, step_s)
    elif stage == "finetune":
        tuning = config.finetune
        selected = (1 + tuning.iterations / tuning.selection.interval) * tuning.selection.episodes
        seconds += tuning.iterations * _iteration_s(config, tuning.num_envs, tuning.ppo, step_s)
        seconds += selected * _horizon(config) * step_s
    elif stage == "evaluate":
        seconds += config.evaluate.episodes * _horizon(config) * step_s
    elif stage == "validation":
        kinds = 1 + len(config.seeds) * (1 + len(config.validation.disturbances()))
        seconds += kinds * config.evaluate.episodes * _horizon(config) * step_s
    elif stage == "curve":
        snapshots = 1 + config.finetune.iterations / max(1, config.finetune.snapshot_interval)
        seconds += snapshots * config.curve.episodes * _horizon(config) * step_s
    else:
        seconds += _read_evaluations(config) * EVALUATION_S
    return max(MIN_MINUTES, math.ceil(TIME_MARGIN * seconds / 60))


def _read_evaluations(config: RunConfig) -> int:
    """Evaluations that a stage reads at most: those of the run, its grid or its sweep."""
    cells = len(config.methods) * max(1, len(config.grid.weights)) * max(1, len(config.grid.num_modes))
    points = len(config.sweep.weights) + len(config.sweep.controllers)
    return max((cells + 1) * len(config.seeds), points * len(config.sweep.seeds))


def _held_episodes(config: RunConfig) -> dict[str, int]:
    """Episodes that a stage holds at once."""
    return {
        "pretrain": config.collect.num_episodes,
        "discover": config.discover.seed_episodes,
        "evaluate": config.evaluate.episodes,
        "curve": config.curve.episodes,
        "validation": config.evaluate.episodes * (len(config.seeds) + 1),
    }


def _iteration_s(config: RunConfig, num_envs: int, ppo: PPOConfig, step_s: float) -> float:
    """One rollout and its updates, on one core but for the simulation."""
    return num_envs * (_horizon(config) * step_s + _decisions(config) * ppo.epochs * SAMPLE_S)


def _horizon(config: RunConfig) -> int:
    return int(config.task.env.get("horizon", DEFAULT_HORIZON))


def _decisions(config: RunConfig) -> float:
    """Chunks of actions in an episode."""
    return _horizon(config) / config.pretrain.policy.n_action_steps
