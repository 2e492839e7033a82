"""Kitchen environments; MuJoCo steps them on the CPU, wherever the policy is."""

from __future__ import annotations

import functools

import torch

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.environments.workers import make_parallel
from bmd_pipeline.tasks.kitchen.options import Options
from bmd_pipeline.tasks.kitchen.task import KitchenTask, make_spec

__all__ = ["make_env", "make_spec"]


def _make_scenes(num_envs: int, first_row: int, *, options: Options, auto_reset: bool) -> KitchenTask:
    return KitchenTask(options, num_envs, first_row=first_row, auto_reset=auto_reset)


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Kitchen environments.

    Args:
        options: the task's settings.
        num_envs: environments stepped together.
        device: where tensors live; scenes are stepped on the CPU all the same.
        num_workers: processes; one means this process. Results don't depend on it.
        auto_reset: start a new episode where one ended.
    """
    factory = functools.partial(_make_scenes, options=options, auto_reset=auto_reset)
    return make_parallel(factory, num_envs, num_workers, device)
