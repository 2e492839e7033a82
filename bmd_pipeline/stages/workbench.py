"""What the stages that play in a task need first: device, threads, environments, policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from bmd_pipeline.compute import choose_matmul, select_device, set_matmul
from bmd_pipeline.config.costs import NATIVE
from bmd_pipeline.config.run import RunConfig
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.policies.checkpoint import load_policy
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.rl.graphs import CUDA, Recorder, graph_env
from bmd_pipeline.seeds import Family, derive_seed
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.stopping import Stop, StoppableEnv
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.base import TaskEnv, TaskSpec


@dataclass(frozen=True)
class Workbench:
    """An opened task with its pre-trained policy.

    Attributes:
        spec: the task's fixed facts.
        env: environments, without automatic reset; a stage can stop between two of their chunks.
        policy: the pre-trained policy, frozen.
        device: where everything lives.
        matmul: name of the matrix kernels; others round differently, so a resumed job must use the same.
        recorder: records CUDA graphs; None: there are to be none.
    """

    spec: TaskSpec
    env: TaskEnv
    policy: DiffusionPolicy
    device: torch.device
    matmul: str
    recorder: Recorder | None

    def resume_with(self, matmul: str, what: str, reporter: Reporter) -> None:
        """Goes on with the kernels that saved progress was made with, and says from where.

        Args:
            matmul: their name.
            what: the point to go on from ("iteration 12").
            reporter: told.
        """
        set_matmul(self.device, matmul)
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


@contextmanager
def open_workbench(
    config: RunConfig, policy_dir: Path, num_envs: int, num_workers: int, reporter: Reporter, stop: Stop | None = None
) -> Iterator[Workbench]:
    """Opens the task and loads its policy; closes the simulator at the end, also on an error.

    Args:
        config: the run.
        policy_dir: the pre-trained policy.
        num_envs: environments stepped together.
        num_workers: simulator processes.
        reporter: where the choice of device is told.
        stop: who may ask the stage to stop.

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
    matmul = choose_matmul(device, config.execution.cuda_matmul)
    recorder = select_recorder(config, device)
    how = ", CUDA graphs" if recorder is not None else ""
    reporter.log(f"{task}: {num_envs} environments on {device}, matrix products in {matmul}{how}")
    with open_env(config, num_envs, num_workers, device, recorder, stop) as env:
        yield Workbench(spec, env, policy, device, matmul, recorder)


@contextmanager
def open_env(
    config: RunConfig,
    num_envs: int,
    num_workers: int,
    device: torch.device,
    recorder: Recorder | None,
    stop: Stop | None = None,
) -> Iterator[TaskEnv]:
    """Opens the task without automatic reset; closes the simulator at the end, also on an error.

    Args:
        config: the run.
        num_envs: environments stepped together.
        num_workers: simulator processes.
        device: where tensors live.
        recorder: records CUDA graphs; None: there are to be none.
        stop: who may ask the stage to stop, between two chunks of steps.
    """
    env = registry.make_env(
        config.task.name, config.task.env, num_envs, device=device, num_workers=num_workers, auto_reset=False
    )
    env = graph_env(env, recorder)
    try:
        yield StoppableEnv(env, stop) if stop else env
    finally:
        env.close()


def episode_seeds(root: int, family: Family, *names: str | int, episodes: int, num_envs: int) -> list[int]:
    """Seeds of as many rounds of num_envs environments as `episodes` need."""
    rounds = -(-episodes // num_envs)
    return [derive_seed(root, family, *names, "episodes", index) for index in range(rounds)]


def require_features(config: RunConfig) -> None:
    """Checks what settings alone can't know: whether the task has the track columns that discovery shall see.

    Raises:
        ConfigError: it has no such column.
    """
    resolve_features(registry.make_spec(config.task.name, config.task.env), config.discover.inference.features)


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
