"""Anymal environments, stepped wherever the device is."""

from __future__ import annotations

import functools

import torch

from bmd_pipeline.environments.base import TaskEnv
from bmd_pipeline.sim.backend import make_simulated
from bmd_pipeline.tasks.anymal.asset import find_urdf
from bmd_pipeline.tasks.anymal.options import Options
from bmd_pipeline.tasks.anymal.task import AnymalTask, make_spec

__all__ = ["make_env", "make_spec"]

find_urdf()  # what lacks the wheel is to fail on import, as with any missing module


def make_env(
    options: Options,
    num_envs: int,
    *,
    device: torch.device | str = "cpu",
    num_workers: int = 1,
    auto_reset: bool = False,
) -> TaskEnv:
    """Builds Anymal environments; see `make_simulated`."""
    task = functools.partial(AnymalTask, options)
    return make_simulated(task, num_envs, device=device, num_workers=num_workers, auto_reset=auto_reset)
