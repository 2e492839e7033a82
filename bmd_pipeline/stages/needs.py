"""What a stage will take of memory and disk, from its settings; docs/reliability.md holds it against what was measured.

Memory is the largest that a stage holds at once, disk the most that it has on disk beyond what was there before: its
output, its progress, and their siblings while they are written. What playing costs, and what a job asks a
cluster for, stands in config/resources.py, which Snakemake works out for every job, and so without the task, which
takes torch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from bmd_pipeline.config import resources
from bmd_pipeline.config.schema import RunConfig, uses_modes
from bmd_pipeline.environments.base import TaskSpec

FLOAT_B = 4
MB = 1e6
PICTURES_B = 1e6
"""Pictures and tables that don't grow."""
TRAINED_COPIES = 18
"""A trained parameter in memory: itself, gradient, two moments, average or best, what a rollback needs, and what is
written."""
SAVED_COPIES = 10
"""A trained parameter on disk: weights, average or best and two moments, twice while a checkpoint is replaced."""


@dataclass(frozen=True)
class Needs:
    """What a stage takes at most, about.

    Attributes:
        memory: bytes, over all its processes.
        disk: bytes.
        because: the settings that decide it, for messages.
    """

    memory: float
    disk: float
    because: str


def estimate_needs(
    config: RunConfig,
    stage: str,
    spec: TaskSpec,
    *,
    method: str | None = None,
    workers: int = 1,
    simulator: str = resources.NATIVE,
) -> Needs:
    """What one of the stages needs.

    Args:
        config: the run.
        stage: its command.
        spec: the task.
        method: what is fine-tuned or judged.
        workers: cores; a simulator has as many worker processes, if more than one.
        simulator: what steps the task.
    """
    process = MB * resources.processes_mb(stage, simulator, workers)
    needs: dict[str, Callable[[RunConfig, TaskSpec, str | None], Needs]] = {
        "collect": _collect,
        "pretrain": _pretrain,
        "discover": _discover,
        "finetune": _finetune,
        "evaluate": functools.partial(_judge, "evaluate"),
        "curve": functools.partial(_judge, "curve"),
        "validation": functools.partial(_judge, "validation"),
    }
    if stage not in needs:
        return Needs(process, PICTURES_B, "")
    own = needs[stage](config, spec, method)
    return Needs(process + own.memory, own.disk, own.because)


def _collect(config: RunConfig, spec: TaskSpec, method: str | None) -> Needs:
    rows = _store(config, spec)
    chunk = FLOAT_B * config.collect.chunk_rows * (spec.obs_dim + spec.action_dim)
    store = math.ceil(rows / chunk) * chunk  # the last chunk is as large on disk as the others
    return Needs(rows + chunk, rows + store, "collect.num_episodes, task.env.horizon")  # the journal, and the store


def _pretrain(config: RunConfig, spec: TaskSpec, method: str | None) -> Needs:
    settings = config.pretrain
    rows = config.collect.num_episodes * spec.horizon
    window = settings.policy.n_obs_steps * spec.obs_dim + settings.policy.horizon * spec.action_dim
    parameters = _policy(config, spec)
    batch = 4 * settings.batch_size * sum(settings.policy.hidden_sizes)
    memory = _store(config, spec) + FLOAT_B * (2 * rows * window + TRAINED_COPIES * parameters + batch)
    memory += MB * resources.rollout_mb(config, "pretrain", _decisions(config, spec))
    why = "pretrain.policy.hidden_sizes, pretrain.batch_size, pretrain.selection.episodes, the number of demonstrations"
    return Needs(memory, FLOAT_B * SAVED_COPIES * parameters, why)


def _discover(config: RunConfig, spec: TaskSpec, method: str | None) -> Needs:
    settings = config.discover
    decisions = _decisions(config, spec)
    trained = _modes(config, spec) + count_critic(config, spec, settings.ppo.value_hidden_sizes)
    held = max(settings.hindsight_episodes, settings.heldout_episodes)
    rounds = (
        FLOAT_B * held * (decisions * (_cond(config, spec) + _noise(config, spec)) + 2 * spec.horizon * spec.track_dim)
    )
    playing = MB * resources.rollout_mb(config, "discover", decisions)
    parameters = FLOAT_B * (_policy(config, spec) + TRAINED_COPIES * trained)
    why = "discover.num_envs, discover.hindsight_episodes, task.env.horizon, hidden_sizes"
    return Needs(playing + 2 * rounds + parameters, 2 * rounds + FLOAT_B * SAVED_COPIES * trained, why)


def _finetune(config: RunConfig, spec: TaskSpec, method: str | None) -> Needs:
    settings = config.finetune
    method = method or "dppo-bmd"  # the largest
    trained = count_critic(config, spec, settings.ppo.value_hidden_sizes)
    if method.startswith("dppo"):
        trained += _policy(config, spec)
    elif method.startswith("res"):
        trained += _mlp(
            _cond(config, spec) + _noise(config, spec), settings.residual.hidden_sizes, _noise(config, spec)
        )
    if uses_modes(method) or method.startswith("dsrl"):
        trained += _modes(config, spec)
    playing = MB * resources.rollout_mb(config, "finetune", _decisions(config, spec))
    kept = settings.iterations // settings.snapshot_interval + 2 if settings.snapshot_interval else 0
    memory = playing + FLOAT_B * (_policy(config, spec) + TRAINED_COPIES * trained)
    return Needs(memory, FLOAT_B * (SAVED_COPIES + kept) * trained, "finetune.num_envs, task.env.horizon, hidden_sizes")


def _judge(stage: str, config: RunConfig, spec: TaskSpec, method: str | None) -> Needs:
    parameters = FLOAT_B * 3 * (_policy(config, spec) + _modes(config, spec))
    memory = MB * resources.judged_mb(config, stage, spec.horizon) + parameters
    rows = config.evaluate.episodes if stage == "evaluate" else 0  # the others write one document
    why = "curve.episodes" if stage == "curve" else "evaluate.num_envs, evaluate.episodes"
    return Needs(memory, 2 * MB * rows * resources.EPISODE_MB + PICTURES_B, why)


def _store(config: RunConfig, spec: TaskSpec) -> float:
    """Bytes of the demonstrations, if every episode takes its full time."""
    return FLOAT_B * config.collect.num_episodes * spec.horizon * (spec.obs_dim + spec.action_dim)


def _decisions(config: RunConfig, spec: TaskSpec) -> int:
    return -(-spec.horizon // config.pretrain.policy.n_action_steps)


def _cond(config: RunConfig, spec: TaskSpec) -> int:
    return config.pretrain.policy.n_obs_steps * spec.obs_dim


def _noise(config: RunConfig, spec: TaskSpec) -> int:
    return config.pretrain.policy.horizon * spec.action_dim


def _policy(config: RunConfig, spec: TaskSpec) -> int:
    """Parameters of the denoiser; the embedding of time is of little account."""
    return _mlp(
        _cond(config, spec) + _noise(config, spec) + 64, config.pretrain.policy.hidden_sizes, _noise(config, spec)
    )


def _modes(config: RunConfig, spec: TaskSpec) -> int:
    """Parameters of the inference model and of the steering policy."""
    settings = config.discover
    seen = settings.inference.history_steps * (len(settings.inference.features) or spec.track_dim)
    inference = _mlp(seen, settings.inference.hidden_sizes, settings.num_modes)
    coded = _cond(config, spec) + settings.num_modes
    return inference + _mlp(coded, settings.steering.hidden_sizes, 2 * _noise(config, spec))


def count_critic(config: RunConfig, spec: TaskSpec, widths: tuple[int, ...]) -> int:
    """Parameters of the largest critic: with codes, the time and two reward streams."""
    return _mlp(_cond(config, spec) + spec.track_dim + config.discover.num_modes + 1, widths, 2)


def _mlp(inputs: int, widths: tuple[int, ...], outputs: int) -> int:
    """Weights and biases of fully connected layers."""
    return sum((one + 1) * other for one, other in itertools.pairwise((inputs, *widths, outputs)))
