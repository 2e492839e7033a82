"""What a stage takes in time and memory, estimated from its settings, and what this machine has.

Snakemake estimates for every job, so this module does without torch.
"""

import itertools
import math
import shutil
from contextlib import suppress
from pathlib import Path

from bmd_pipeline.config.schema import PPOConfig, RunConfig, grid_methods, grid_seeds
from bmd_pipeline.methods import compared_policies, method_family

NATIVE = "native"
"""What a task without a simulator says its simulator is."""
PLAYERS = ("collect", "pretrain", "discover", "finetune", "evaluate", "curve", "validation", "film")
"""Commands that play episodes."""

PROCESS_MB = 400.0  # Python with torch and what else a stage imports
SIMULATOR_MB = 250.0  # what a simulator adds to the process that steps it
WORKER_MB = 400.0  # one worker process of a simulator
DECISION_MB = 0.0045  # one decision in a rollout and in the batches made of it
STEP_MB = 0.00035  # one control step of the episodes that are evaluated at once
EPISODE_MB = 0.0015  # rows and path of one evaluated episode

STEPS_PER_S = {NATIVE: 50_000.0, "ManiSkill": 1400.0, "MuJoCo": 370.0}
"""Control steps of one core by simulator. ManiSkill's is that of Lift and Reach, its slowest tasks."""
EXPERT_SHARE = 0.18
"""Speed while a scripted expert plays, as a share of `STEPS_PER_S`; measured on PushT, whose planning expert is the
slowest."""

# The measurements are in docs/results/resources.md. Memory is what the job was seen to take with a quarter on top; a
# job that still runs out gets that much again with each attempt. Time is four times what an idle core took, since
# cores differ. A stage that can go on saves and stops when it runs out of it; the others get that much again with
# each attempt.

SCHEDULER_MB = 250  # Snakemake, twice, around the stage in a cluster's job
ROW_MB = {"pretrain": 0.0005, "discover": 0.0001}
"""One control step of the demonstrations or seed episodes, whose widths are the task's."""
EVALUATION_MB = 2  # one evaluation among those that are weighed together
MEMORY_MARGIN = 1.25

START_S = 30.0  # imports, reading and writing
SAMPLE_S = 60e-6  # one transition in one epoch of PPO
FIT_STEP_S = 0.01  # one gradient step of discovery's networks
CLONING_STEP_S = 0.005  # one step of behaviour cloning without its matrix products
FLOPS = 30e9  # float32 operations per second of one core in those products
EVALUATION_S = 0.25  # reading and resampling one evaluation
TIME_MARGIN = 4.0
MIN_MINUTES = 10

DEFAULT_HORIZON = 200  # steps of an episode where the task has no setting of that name
DEVICE_MB, DEVICE_MINUTES = 16_000, 240
"""What a job on a CUDA device asks for at least, generously: none was measured."""

FILM_MB, FILM_S = 1100.0, 870.0
"""What playing and rendering a film takes beside its simulator: chosen generously, not measured."""

READERS = ("summarise", "compare", "verdict", "grid", "pool", "report")
"""Stages that read evaluations and take seconds."""
RESUMABLE = ("pretrain", "discover", "finetune")
"""Stages that save what they have when their time is up, and go on in the next attempt."""
ON_CPU = ("collect", "film", *READERS)
"""Commands that use no CUDA device."""


def discovered_episodes(config: RunConfig) -> int:
    """Episodes that a discovery plays outside of PPO: held-out ones of the base policy and under codes; coded: also
    those for each strength and for hindsight; published: also one rollout for the scale of the features."""
    settings = config.discover
    if settings.form == "published":
        return 2 * settings.heldout_episodes + settings.num_envs
    return (2 + len(settings.teaching.strengths)) * settings.heldout_episodes + settings.hindsight_episodes


def validated_steps(config: RunConfig, horizon: int) -> int:
    """Control steps that `validation` plays: the base policy twice, each seed's codes, and under each disturbance."""
    disturbed = sum(int(changes.get("horizon", horizon)) for changes in config.validation.disturbances.values())
    episodes = config.evaluate.episodes
    steps = 2 * horizon + len(config.seeds) * (horizon + disturbed)
    return _round_up(episodes, min(config.evaluate.num_envs, episodes)) * steps


def count_rounds(episodes: int, num_envs: int) -> int:
    """Rounds of `num_envs` environments that so many episodes take."""
    return -(-episodes // num_envs)


def _round_up(episodes: int, num_envs: int) -> int:
    """Episodes that are played where so many are wanted: whole rounds of the environments."""
    return count_rounds(episodes, num_envs) * num_envs


def uses_device(config: RunConfig, stage: str, *, simulator: str, expected: bool) -> bool:
    """Whether a stage that may compute on a CUDA device will; `expected` says whether there is to be one where
    `execution.device` leaves it open."""
    if stage in ON_CPU:
        return False
    if simulator != NATIVE and stage in PLAYERS and stage != "pretrain":  # which learns on the device
        return config.task.physics == "cuda"
    return config.execution.device == "cuda" or (config.execution.device == "auto" and expected)


def estimate_mem_mb(
    config: RunConfig, stage: str, *, threads: int, simulator: str, on_device: bool = False, method: str = ""
) -> int:
    """Memory of a stage's job in MB.

    Args:
        config: the run.
        stage: the command.
        threads: cores of the job; a simulator has as many workers, if more than one.
        simulator: what steps the task.
        on_device: whether it computes on a CUDA device.
        method: what it fine-tunes by, if it does.
    """
    total = SCHEDULER_MB + PROCESS_MB
    if stage in PLAYERS and simulator != NATIVE:
        one_process = stage == "film" or threads == 1
        total += SIMULATOR_MB if one_process else threads * WORKER_MB
    if stage == "film":
        total += FILM_MB
    elif stage in READERS:
        total += EVALUATION_MB * _read_evaluations(config, stage)
    else:
        steps, episodes = _horizon(config), config.evaluate.episodes
        read = {"pretrain": config.collect.num_episodes, "discover": discovered_episodes(config)}.get(stage, 0)
        rollouts = {
            "pretrain": config.pretrain.selection.episodes,
            "discover": config.discover.num_envs,
            "finetune": config.finetune.num_envs,
        }
        kept = episodes if stage in ("evaluate", "curve", "validation") else 0
        # validation compares whole rollouts: the base policy's two, and one of a seed's codes
        held = 3 * kept if stage == "validation" else min(config.evaluate.num_envs, kept)
        total += read * steps * ROW_MB.get(stage, 0.0)
        total += rollouts.get(stage, 0) * _decisions(config, method) * DECISION_MB
        total += held * steps * STEP_MB + kept * EPISODE_MB
    return max(DEVICE_MB if on_device else 0, math.ceil(total * MEMORY_MARGIN / 100) * 100)


def estimate_minutes(
    config: RunConfig, stage: str, *, threads: int, simulator: str, on_device: bool = False, method: str = ""
) -> int:
    """Time limit of a stage's job in minutes; arguments as in `estimate_mem_mb`."""
    step_s = 1 / (STEPS_PER_S.get(simulator, min(STEPS_PER_S.values())) * threads)  # an unknown one: as the slowest
    seconds = START_S
    if stage == "collect":
        seconds += config.collect.num_episodes * _horizon(config) * step_s / EXPERT_SHARE
    elif stage == "pretrain":
        seconds += config.pretrain.iterations * _cloning_step_s(config, config.pretrain.batch_size, threads)
        selection = config.pretrain.selection
        rounds = 1 + config.pretrain.iterations // selection.interval
        seconds += rounds * selection.episodes * _horizon(config) * step_s
    elif stage == "discover":
        settings = config.discover
        seconds += discovered_episodes(config) * _horizon(config) * step_s
        if settings.form == "coded":
            seconds += settings.teaching.steps * _cloning_step_s(config, settings.teaching.batch_size, threads)
            seconds += settings.inference.fit_steps * FIT_STEP_S
        else:
            ppo = config.finetune.ppo
            seconds += settings.warmup_iterations * _iteration_s(config, settings.num_envs, ppo, step_s)
    elif stage == "finetune":
        tuning = config.finetune
        selected = (1 + tuning.iterations / tuning.selection.interval) * tuning.selection.episodes
        seconds += tuning.iterations * _iteration_s(config, tuning.num_envs, tuning.ppo, step_s, method)
        seconds += selected * _horizon(config) * step_s
    elif stage == "evaluate":
        judged = config.evaluate.episodes
        num_envs = min(config.evaluate.num_envs, judged)
        played = _round_up(config.evaluate.selection_episodes, num_envs) + _round_up(judged, num_envs)
        seconds += played * _horizon(config) * step_s
    elif stage == "validation":
        seconds += validated_steps(config, _horizon(config)) * step_s
    elif stage == "curve":
        snapshots = 1 + config.finetune.iterations / max(1, config.finetune.snapshot_interval)
        episodes = config.evaluate.episodes + config.evaluate.selection_episodes
        played = _round_up(episodes, min(config.evaluate.num_envs, episodes))
        seconds += snapshots * played * _horizon(config) * step_s
    elif stage == "film":
        seconds += FILM_S
    else:
        seconds += _read_evaluations(config, stage) * EVALUATION_S
    return max(DEVICE_MINUTES if on_device else MIN_MINUTES, math.ceil(TIME_MARGIN * seconds / 60))


def _cloning_step_s(config: RunConfig, batch_size: int, threads: int) -> float:
    """A gradient step of behaviour cloning."""
    widths = config.pretrain.policy.hidden_sizes
    weights = 100 * widths[0] + sum(one * other for one, other in itertools.pairwise(widths))
    return CLONING_STEP_S + 6 * batch_size * weights / (FLOPS * threads)


def _read_evaluations(config: RunConfig, stage: str) -> int:
    """Evaluations that a stage reads at most: those of the run, of it on every base policy, or of its grid."""
    in_run = len(compared_policies(config.methods, config.discover.form)) * len(config.seeds)
    if stage == "pool":
        return in_run * len(config.pool.bases)
    cells = math.prod(map(len, config.grid.axes.values()))
    in_grid = cells * len(grid_methods(config)) * len(grid_seeds(config))
    return max(in_run, in_grid)


def _iteration_s(config: RunConfig, num_envs: int, ppo: PPOConfig, step_s: float, method: str = "") -> float:
    """One rollout and its updates, on one core but for the simulation."""
    return num_envs * (_horizon(config) * step_s + _decisions(config, method) * ppo.epochs * SAMPLE_S)


def _horizon(config: RunConfig) -> int:
    return int(config.task.env.get("horizon", DEFAULT_HORIZON))


def _decisions(config: RunConfig, method: str = "") -> float:
    """Decisions in an episode: one for each chunk of actions, but for each control step where a residual corrects."""
    steps = 1 if method_family(method) == "res" else config.pretrain.policy.n_action_steps
    return _horizon(config) / steps


CGROUP = Path("/sys/fs/cgroup")


def free_memory_mb() -> float | None:
    """Memory that this process could still get, of the machine or its control group; None if the system is silent."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # "max" sets no limit
        limit = int((CGROUP / "memory.max").read_text())
        found.append(max(0, limit - int((CGROUP / "memory.current").read_text())))
    return min(found) / 1e6 if found else None


def free_disk_mb(folder: Path) -> float:
    """Room that this user has left where a folder is."""
    return shutil.disk_usage(folder).free / 1e6
