"""Avoid environments, stepped wherever the device is."""

from __future__ import annotations

import functools

import torch

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.sim.backend import make_simulated
from bmd_pipeline.tasks.avoid.options import Options
from bmd_pipeline.tasks.avoid.task import AvoidTask, make_spec

__all__ = ["make_env", "make_spec"]


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Avoid environments; see `make_simulated`."""
    task = functools.partial(AvoidTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
