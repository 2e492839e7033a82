"""What the stages need first and share: room, device, environments, policy, rounds of episodes on disk."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.compute import select_device, set_matmul
from bmd_pipeline.config import resources
from bmd_pipeline.config.resources import NATIVE
from bmd_pipeline.config.schema import RunConfig, TaskConfig, uses_modes
from bmd_pipeline.demos.store import CHUNK_ROWS
from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.environments.wrappers import DisturbedEnv
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.progress import take_prefix
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.graphs import CUDA, Recorder, graph_env
from bmd_pipeline.rl.rollout import Rollout
from bmd_pipeline.seeds import Family, derive_seed
from bmd_pipeline.stages.console import Reporter, Stop, StoppableEnv
from bmd_pipeline.tasks import registry

# ---- What a stage will take of memory and disk, from its settings; docs/reliability.md holds it against what was
# measured ----
#
# Memory is the largest that a stage holds at once, disk the most that it has on disk beyond what was there before: its
# output, its progress, and their siblings while they are written. What playing costs, and what a job asks a
# cluster for, stands in config/resources.py, which Snakemake works out for every job, and so without the task, which
# takes torch.

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
    chunk = FLOAT_B * CHUNK_ROWS * (spec.obs_dim + spec.action_dim)
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


# ---- Is there room? Asked before a stage begins, so that an hour of work doesn't end in a full disk ----

CGROUP = Path("/sys/fs/cgroup")


def require_room(config: RunConfig, stage: str, output: Path, *, method: str | None = None, workers: int = 1) -> None:
    """Refuses a stage that would run out of memory or disk.

    Args:
        config: the run.
        stage: its command.
        output: what it writes, there or not.
        method: what is fine-tuned or judged.
        workers: cores it may use.

    Raises:
        ConfigError: too little memory for these settings.
        ArtifactError: too little room where the output goes.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    simulator = registry.get_entry(config.task.name).simulator
    needs = estimate_needs(config, stage, spec, method=method, workers=workers, simulator=simulator)
    memory, disk = free_memory(), free_disk(output)
    if memory is not None and needs.memory > memory:
        why = f"lower {needs.because}, or free some" if needs.because else "free some"
        raise ConfigError(f"{stage} needs about {tell(needs.memory)} of memory, {tell(memory)} is available: {why}")
    if needs.disk > disk:
        raise ArtifactError(
            f"{stage} needs about {tell(needs.disk)} of disk for {output}, {tell(disk)} is free there: make room"
        )


def free_memory() -> float | None:
    """Bytes that this process could still get, of the machine or its control group; None if the system doesn't say."""
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024.0 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # "max" sets no limit
        limit = int((CGROUP / "memory.max").read_text())
        found.append(float(max(0, limit - int((CGROUP / "memory.current").read_text()))))
    return min(found, default=None)


def free_disk(path: Path) -> float:
    """Bytes that this user may still write where a path is, or would be."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return float(shutil.disk_usage(place).free)


def tell(size: float) -> str:
    """A size for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


# ---- What the stages that play in a task need first: device, threads, environments, policy ----


@dataclass(frozen=True)
class Workbench:
    """An opened task with its pre-trained policy.

    Attributes:
        spec: the task's fixed facts.
        env: environments, without automatic reset; a stage can stop between two of their chunks.
        policy: the pre-trained policy, frozen.
        device: where everything lives.
        matmul: precision of float32 matrix products, for run.json.
        recorder: records CUDA graphs; None: there are to be none.
    """

    spec: TaskSpec
    env: TaskEnv
    policy: DiffusionPolicy
    device: torch.device
    matmul: str
    recorder: Recorder | None

    def log_resume(self, what: str, reporter: Reporter) -> None:
        """Says from where a stage goes on ("iteration 12")."""
        simulator = registry.get_entry(self.spec.name).simulator
        how = "" if simulator == NATIVE else f", at the start of its episodes: {simulator} can't save them halfway"
        reporter.log(f"going on from {what}{how}")


def select_stage_device(config: RunConfig) -> torch.device:
    """Where a stage plays episodes and learns from them: where the task is stepped, so that nothing travels.

    Raises:
        ConfigError: the device that was asked for is not there.
    """
    if registry.get_entry(config.task.name).simulator == NATIVE:
        return select_device(config.execution.device)
    if config.task.physics == "cuda" and not torch.cuda.is_available():
        raise ConfigError("task.physics is cuda, but torch finds no CUDA device; set it to cpu, or take preset cpu")
    return torch.device(config.task.physics)


def select_recorder(config: RunConfig, device: torch.device) -> Recorder | None:
    """What records CUDA graphs on a device; None where there are to be none."""
    return CUDA if config.execution.cuda_graphs and device.type == "cuda" else None


def open_env(
    task: TaskConfig,
    policy: DiffusionPolicy,
    num_envs: int,
    *,
    disturbed: bool,
    device: torch.device,
    num_workers: int,
    recorder: Recorder | None = None,
) -> TaskEnv:
    """Opens a task without automatic reset, in one of its two worlds.

    Args:
        task: which task, with its settings.
        policy: the pre-trained policy, whose normaliser says how large a deviation of observations is.
        num_envs: environments stepped together.
        disturbed: True for the world of `task.env.disturbance`, False for the demonstrations'.
        device: where tensors live.
        num_workers: simulator processes; results don't depend on it.
        recorder: records the steps of native tasks as CUDA graphs, which disturbances stay outside of; None: no graphs.
    """
    env = registry.make_env(task.name, task.env, num_envs, device=device, num_workers=num_workers, auto_reset=False)
    env = graph_env(env, recorder)
    return disturb(env, task, policy) if disturbed else env


def disturb(env: TaskEnv, task: TaskConfig, policy: DiffusionPolicy) -> TaskEnv:
    """An opened task in the world of `task.env.disturbance`; the same object where that is the demonstrations'."""
    disturbance = registry.load_disturbance(task.env)
    return DisturbedEnv(env, disturbance, get_obs_std(policy, env.spec)) if disturbance.describe() else env


def get_obs_std(policy: DiffusionPolicy, spec: TaskSpec) -> Tensor:
    """(obs_dim,) standard deviation by which a policy normalises each component of the current observation."""
    return policy.obs_normaliser.std[: spec.obs_dim]


@contextmanager
def open_workbench(
    config: RunConfig,
    policy_dir: Path,
    num_envs: int,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
    *,
    disturbed: bool,
) -> Iterator[Workbench]:
    """Opens the task and loads its policy; closes the simulator at the end, also on an error.

    Args:
        config: the run.
        policy_dir: the pre-trained policy.
        num_envs: environments stepped together.
        num_workers: simulator processes.
        reporter: where the choice of device is told.
        stop: who may ask the stage to stop.
        disturbed: see `open_env`.

    Raises:
        ArtifactError: the policy is missing, damaged, or does not fit the task.
    """
    device = select_stage_device(config)
    task = config.task.name
    spec = registry.make_spec(task, config.task.env)
    policy = load_policy(
        policy_dir,
        task=task,
        device=device,
        obs_dim=spec.obs_dim,
        action_dim=spec.action_dim,
        action_bounds=(spec.action_low, spec.action_high),
    )
    matmul = set_matmul(device, config.execution.cuda_matmul)
    recorder = select_recorder(config, device)
    how = ", CUDA graphs" if recorder is not None else ""
    if disturbed and (world := registry.load_disturbance(config.task.env).describe()):
        how += f"; disturbed: {world}"
    reporter.log(f"{task}: {num_envs} environments on {device}, matrix products in {matmul}{how}")
    env = open_env(
        config.task,
        policy,
        num_envs,
        disturbed=disturbed,
        device=device,
        num_workers=num_workers,
        recorder=recorder,
    )
    try:
        yield Workbench(spec, StoppableEnv(env, stop) if stop else env, policy, device, matmul, recorder)
    finally:
        env.close()


def episode_seeds(root: int, family: Family, *names: str | int, episodes: int, num_envs: int) -> list[int]:
    """Seeds of as many rounds of num_envs environments as `episodes` need."""
    rounds = -(-episodes // num_envs)
    return [derive_seed(root, family, *names, "episodes", index) for index in range(rounds)]


def check_settings(config: RunConfig) -> None:
    """Checks what settings alone can't know: that the task has the track columns and the action that they name.

    Raises:
        ConfigError: it has no such column, or no such component of the action.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    resolve_features(spec, config.discover.inference.features)
    locked = registry.load_disturbance(config.task.env).locked_action
    if locked is not None and locked >= spec.action_dim:
        raise ConfigError(
            f"task.env.disturbance.locked_action must be < {spec.action_dim} for {config.task.name}, got {locked}"
        )


def resolve_features(spec: TaskSpec, names: tuple[str, ...]) -> tuple[int, ...]:
    """Track columns of the named features; the whole track if none are named.

    Raises:
        ConfigError: a name that the task's track doesn't have.
    """
    chosen = names or spec.track_names
    for name in chosen:
        if name not in spec.track_names:
            raise ConfigError(
                f"discover.inference.features: {spec.name} has no track column {name!r}; "
                f"it has {', '.join(spec.track_names)}"
            )
    return tuple(spec.track_names.index(name) for name in chosen)


# ---- Played rounds of episodes as tensors, so that a checkpoint can hold them ----


def pack_rounds(rounds: Sequence[Rollout]) -> dict[str, Tensor]:
    """Tensors of rollouts by `<round>.<field>`; those of the record by `<round>.record.<name>`."""
    tensors: dict[str, Tensor] = {}
    for index, played in enumerate(rounds):
        for field in dataclasses.fields(played):
            value = getattr(played, field.name)
            parts = value if isinstance(value, dict) else {"": value}
            for name, part in parts.items():
                if isinstance(part, Tensor):  # rounds may share one, which a file of tensors can't
                    tensors[f"{index}.{field.name}.{name}".rstrip(".")] = part.clone()
    return tensors


def unpack_rounds(tensors: Mapping[str, Tensor], feature_columns: Sequence[int], device: torch.device) -> list[Rollout]:
    """Restores what `pack_rounds` took.

    Args:
        tensors: from `pack_rounds`.
        feature_columns: what the rollouts say of their track, which is no tensor.
        device: where to put them.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, field, *name = key.split(".", 2)
        values = found.setdefault(int(index), {"record": {}, "feature_columns": tuple(feature_columns)})
        if name:
            values[field][name[0]] = tensor.to(device)
        else:
            values[field] = tensor.to(device)
    return [Rollout(**found[index]) for index in sorted(found)]


_ROWS = ("code", "success", "length", "episode_return", "information")


def pack_episodes(
    parts: Sequence[Episodes], paths: Sequence[NDArray[np.float32]], extra: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A snapshot of evaluated rounds.

    Args:
        parts: episodes of each round, of one policy.
        paths: their planar paths, (num_envs, points, 2) each.
        extra: tensors to store beside them.
    """
    tensors = dict(extra)
    for index, (part, path) in enumerate(zip(parts, paths, strict=True)):
        arrays = {name: getattr(part, name) for name in _ROWS} | {"path": path}
        arrays |= {f"weights.{name}": labelled.weights for name, labelled in part.labellings.items()}
        tensors |= {f"{index}.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    values: dict[str, Any] = {"rounds": len(parts)}
    if parts:
        first = parts[0]
        values |= {name: getattr(first, name) for name in ("policy", "seed", "num_codes")}
        values["labellings"] = {name: list(labelled.modes) for name, labelled in first.labellings.items()}
    return tensors, values


def unpack_episodes(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> tuple[list[Episodes], list[NDArray[np.float32]]]:
    """Restores the rounds that `pack_episodes` took."""
    parts, paths = [], []
    for index in range(values["rounds"]):
        own: dict[str, Any] = {name: tensor.numpy() for name, tensor in take_prefix(str(index), tensors).items()}
        paths.append(own["path"])
        parts.append(
            Episodes(
                **{name: values[name] for name in ("policy", "seed", "num_codes")},
                **{name: own[name] for name in _ROWS},
                labellings={
                    name: ModeWeights(tuple(modes), own[f"weights.{name}"])
                    for name, modes in values["labellings"].items()
                },
            )
        )
    return parts, paths
