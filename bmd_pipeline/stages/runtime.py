"""Device, environment and policy: what the stages that play episodes open first."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bmd_pipeline.compute import select_device, set_matmul
from bmd_pipeline.config.resources import NATIVE
from bmd_pipeline.config.schema import RunConfig, TaskConfig
from bmd_pipeline.environments.base import TaskEnv, TaskSpec
from bmd_pipeline.environments.wrappers import DisturbedEnv
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.rl.graphs import CUDA, GraphRecorder, graph_env
from bmd_pipeline.seeds import Family, derive_seed
from bmd_pipeline.stages.console import Reporter, Stop, StoppableEnv
from bmd_pipeline.tasks import registry


@dataclass(frozen=True)
class Context:
    """An opened task with its pre-trained policy."""

    env: TaskEnv  # a stage can stop between two of its chunks
    policy: BasePolicy  # the pre-trained one, frozen
    device: torch.device  # where everything lives
    matmul: str  # precision of float32 matrix products, for run.json
    recorder: GraphRecorder | None  # records CUDA graphs; None: there are to be none

    def log_resume(self, what: str, reporter: Reporter) -> None:
        """Says from where a stage goes on ("iteration 12")."""
        simulator = registry.get_entry(self.env.spec.name).simulator
        how = "" if simulator == NATIVE else f", at the start of its episodes: {simulator} can't save them halfway"
        reporter.log(f"going on from {what}{how}")


def select_stage_device(config: RunConfig) -> torch.device:
    """Where a stage plays episodes and learns from them: where the task is stepped, so that nothing travels.

    Raises `ConfigError` if the device that was asked for is not there.
    """
    if registry.get_entry(config.task.name).simulator == NATIVE:
        return select_device(config.execution.device)
    if config.task.physics == "cuda" and not torch.cuda.is_available():
        raise ConfigError("task.physics is cuda, but torch finds no CUDA device; set it to cpu, or take preset cpu")
    return torch.device(config.task.physics)


def select_recorder(config: RunConfig, device: torch.device) -> GraphRecorder | None:
    """What records CUDA graphs on a device; None where there are to be none, as of a user's own code."""
    wanted = config.execution.cuda_graphs and not config.pretrain.external_policy
    return CUDA if wanted and device.type == "cuda" else None


def prepare_device(config: RunConfig) -> tuple[torch.device, GraphRecorder | None, str]:
    """The device that a stage plays on, what records CUDA graphs there (None: nothing shall), and the precision of
    float32 matrix products, which it sets."""
    device = select_stage_device(config)
    execution = config.execution
    return device, select_recorder(config, device), set_matmul(device, execution.cuda_matmul, execution.cpu_matmul)


def open_env(
    task: TaskConfig,
    policy: BasePolicy,
    num_envs: int,
    *,
    disturbed: bool,
    device: torch.device,
    num_workers: int,
    recorder: GraphRecorder | None = None,
) -> TaskEnv:
    """Opens a task, in the world of `task.env.disturbance` or in the demonstrations'.

    The normaliser of the pre-trained policy says how large a deviation of observations is. A recorder records the steps
    of native tasks as CUDA graphs, which disturbances stay outside of.

    Raises `ConfigError` if the task has no such action as the disturbance locks.
    """
    if disturbed:  # before a simulator starts
        require_action(registry.make_spec(task.name, task.env), task.env, "task.env")
    env = registry.make_env(task.name, task.env, num_envs, device=device, num_workers=num_workers)
    env = graph_env(env, recorder)
    return disturb(env, task, policy) if disturbed else env


def disturb(env: TaskEnv, task: TaskConfig, policy: BasePolicy) -> TaskEnv:
    """The environment under `task.env.disturbance`; `env` itself if nothing is disturbed."""
    disturbance = registry.load_disturbance(task.env)
    if not disturbance.describe():
        return env
    return DisturbedEnv(env, disturbance, policy.obs_normaliser.std[: env.spec.obs_dim])  # of the current observation


def load_task_policy(config: RunConfig, folder: Path, device: torch.device | str = "cpu") -> BasePolicy:
    """Loads a pre-trained policy and checks that it fits the run's task.

    Raises:
        ArtifactError: it is missing, damaged, or for another task, or other sizes or bounds.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    return load_policy(
        folder,
        task=config.task.name,
        device=device,
        obs_dim=spec.obs_dim,
        action_dim=spec.action_dim,
        action_bounds=(spec.action_low, spec.action_high),
        external=config.pretrain.external_policy,
    )


@contextmanager
def open_context(
    config: RunConfig,
    policy_dir: Path,
    num_envs: int,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
    *,
    disturbed: bool,
) -> Iterator[Context]:
    """Opens the task and loads its policy; closes the simulator at the end, also on an error.

    Raises `ArtifactError` as `load_task_policy`; for the arguments and `ConfigError` see `open_env`.
    """
    device, recorder, matmul = prepare_device(config)
    policy = load_task_policy(config, policy_dir, device)
    how = ", CUDA graphs" if recorder is not None else ""
    if disturbed and (world := registry.load_disturbance(config.task.env).describe()):
        how += f"; disturbed: {world}"
    reporter.log(f"{config.task.name}: {num_envs} environments on {device}, matrix products in {matmul}{how}")
    opened = open_env(
        config.task, policy, num_envs, disturbed=disturbed, device=device, num_workers=num_workers, recorder=recorder
    )
    with closing(opened) as env:
        yield Context(StoppableEnv(env, stop) if stop else env, policy, device, matmul, recorder)


def count_rounds(episodes: int, num_envs: int) -> int:
    """Rounds of `num_envs` environments that so many episodes take."""
    return -(-episodes // num_envs)


def episode_seeds(root: int, family: Family, *names: str | int, episodes: int, num_envs: int) -> list[int]:
    """Seeds of as many rounds of num_envs environments as `episodes` need."""
    rounds = count_rounds(episodes, num_envs)
    return [derive_seed(root, family, *names, "episodes", index) for index in range(rounds)]


def check_settings(config: RunConfig) -> None:
    """Checks what settings alone can't know: that the task has the track columns and the action that they name.

    Raises `ConfigError` otherwise.
    """
    spec = registry.make_spec(config.task.name, config.task.env)
    resolve_features(spec, config.discover.inference.features)
    require_action(spec, config.task.env, "task.env")


def require_action(spec: TaskSpec, env: Mapping[str, Any], place: str) -> None:
    """Checks that the task has the component of the action that a disturbance locks.

    Raises `ConfigError` otherwise; the message names the setting, below `place`.
    """
    locked = registry.load_disturbance(env).locked_action
    if locked is not None and locked >= spec.action_dim:
        raise ConfigError(
            f"{place}.disturbance.locked_action must be < {spec.action_dim} for {spec.name}, got {locked}"
        )


def resolve_features(spec: TaskSpec, names: tuple[str, ...]) -> tuple[int, ...]:
    """Track columns of the named features; the whole track if none are named.

    Raises `ConfigError` for a name that the task's track doesn't have.
    """
    for name in names:
        if name not in spec.track_names:
            raise ConfigError(
                f"discover.inference.features: {spec.name} has no track column {name!r}; "
                f"it has {', '.join(spec.track_names)}"
            )
    return tuple(spec.track_names.index(name) for name in names or spec.track_names)
