"""PushT environments: ManiSkill's PushT-v1 with its own success test, stepped wherever the device is."""

from __future__ import annotations

import functools

import torch

from bmd_pipeline.sim.workers import make_parallel
from bmd_pipeline.tasks.base import TaskEnv
from bmd_pipeline.tasks.pusht.options import Options
from bmd_pipeline.tasks.pusht.scenes import PushTScenes
from bmd_pipeline.tasks.pusht.task import make_spec

__all__ = ["make_env", "make_spec"]


def _make_scenes(num_envs: int, first_row: int, *, options: Options, auto_reset: bool) -> PushTScenes:
    return PushTScenes(options, num_envs, first_row=first_row, auto_reset=auto_reset)


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds PushT environments.

    Args:
        options: the task's settings.
        num_envs: environments stepped together.
        device: a CUDA device selects ManiSkill's GPU simulation; on the CPU, many scenes share a process.
        num_workers: processes on the CPU; one means this process. Results don't depend on it.
        auto_reset: start a new episode where one ended.
    """
    if torch.device(device).type == "cuda":
        from bmd_pipeline.tasks.pusht.gpu import PushTOnGPU

        return PushTOnGPU(options, num_envs, device=device, auto_reset=auto_reset)
    return make_parallel(functools.partial(_make_scenes, options=options, auto_reset=auto_reset), num_envs, num_workers)
