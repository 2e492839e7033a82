"""What a stage's job asks a cluster for, and what this machine has.

Snakemake asks for every job, so this module does without torch.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from bmd_pipeline.config.schema import RunConfig

NATIVE = "native"
"""What a task without a simulator says its simulator is."""
PLAYERS = ("collect", "pretrain", "discover", "finetune", "evaluate", "curve", "validation", "play", "export")
"""Commands that play episodes."""
READERS = ("summarise", "compare", "verdict", "grid", "pool", "report")
"""Stages that read evaluations and take seconds."""
RESUMABLE = ("pretrain", "discover", "finetune")
"""Stages that save what they have when their time is up, and go on in the next attempt."""
ON_CPU = ("collect", "play", "export", *READERS)
"""Commands that use no CUDA device."""

ASKED = {
    "collect": ((1000, 30), (1700, 30)),
    "pretrain": ((1500, 120), (2100, 120)),
    "discover": ((1500, 60), (1800, 120)),
    "finetune": ((1500, 360), (1800, 720)),
    "evaluate": ((1000, 30), (1500, 60)),
    "curve": ((1000, 60), (1500, 960)),
    "validation": ((1000, 30), (1500, 240)),
    "play": ((2200, 60), (2500, 60)),
    "export": ((1000, 30), (1500, 60)),
    **dict.fromkeys(READERS, ((1000, 30), (1000, 30))),
}
"""Memory in MB and minutes of a job on one core, for native tasks and for simulated ones."""
WORKER_MB = 400
"""One more worker process of a simulator."""
DEVICE_MB, DEVICE_MINUTES = 16_000, 240
"""What a job on a CUDA device asks for at least, generously: none was measured."""


def uses_device(config: RunConfig, stage: str, *, simulator: str, expected: bool) -> bool:
    """Whether a stage that may compute on a CUDA device will; `expected` says whether there is to be one where
    `execution.device` leaves it open."""
    if stage in ON_CPU:
        return False
    if simulator != NATIVE and stage in PLAYERS and stage != "pretrain":  # which learns on the device
        return config.task.physics == "cuda"
    return config.execution.device == "cuda" or (config.execution.device == "auto" and expected)


def list_demands(stage: str, *, threads: int, simulator: str, on_device: bool = False) -> tuple[int, int]:
    """Memory in MB and minutes that a stage's job asks for.

    Args:
        stage: the command.
        threads: cores of the job; a simulator has as many workers.
        simulator: what steps the task.
        on_device: whether it computes on a CUDA device.
    """
    simulated = simulator != NATIVE
    memory, minutes = ASKED[stage][simulated]
    if simulated and stage in PLAYERS:
        memory += (threads - 1) * WORKER_MB
    return (max(memory, DEVICE_MB), max(minutes, DEVICE_MINUTES)) if on_device else (memory, minutes)


CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: those that it is bound to, and no more than its control group may."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max" sets no limit
        quota, period = map(int, (CGROUP / "cpu.max").read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


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
