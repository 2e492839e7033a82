"""Settings of how a run executes; they enter no hash.

They change no result, but for `device`: a CUDA device rounds otherwise and draws other random numbers, so that a run
on it is another sample of the same thing. What would change the physics is a setting of the task, `task.physics`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.config.base import Section


class ThreadsConfig(Section):
    """Cores each stage asks for; simulator tasks start that many worker processes."""

    collect: int = Field(1, ge=1, le=1024)
    """Processes that demonstrate at the same time."""
    pretrain: int = Field(1, ge=1, le=1024)
    """Cores of torch."""
    discover: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes."""
    finetune: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes."""
    evaluate: int = Field(1, ge=1, le=1024)
    """Cores of torch, or simulator processes; also of what comes after."""


class ExecutionConfig(Section):
    """Devices, cores, checkpoints and tracking."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks live; auto takes CUDA where there is one. Random draws differ between devices. Episodes of a task
    that a simulator steps are played and learnt from on the CPU all the same, unless `task.physics` is cuda."""
    cuda_matmul: Literal["float32", "tf32"] = "float32"
    """How a CUDA device multiplies float32 matrices; tf32 keeps ten bits of the fraction."""
    cuda_graphs: bool = False
    """On a CUDA device, launch decisions, PPO's minibatches and the steps of native tasks as CUDA graphs instead of
    kernel by kernel: the same draws, faster where batches are small. No effect on the CPU."""
    threads: ThreadsConfig = ThreadsConfig()
    """Cores per stage."""
    mem_mb: int | None = Field(None, ge=100, le=10_000_000)
    """Memory a job asks a cluster for at its first attempt; null: estimated for each stage."""
    runtime_minutes: int | None = Field(None, ge=1, le=100_000)
    """Time a job asks a cluster for; null: estimated for each stage."""
    checkpoint_minutes: float = Field(5.0, ge=0.0, le=10_000.0)
    """Longest time between two resumable checkpoints; 0 saves at every point from which a stage can go on."""
    max_minutes: float | None = Field(None, gt=0.0, le=1_000_000.0)
    """A stage saves and stops after that many minutes, to be run again (`--max-minutes`); null: it never does."""
    wait_minutes: float = Field(0.0, ge=0.0, le=1_000_000.0)
    """How long a stage waits for another job that writes the same output; if that one wrote what this one would, it is
    taken. 0 refuses at once. On a cluster, where jobs outlive the Snakemake that started them, the profiles wait."""
    tracker: Literal["none", "wandb"] = "none"
    """Also report metrics to wandb (offline unless WANDB_MODE says otherwise); local files are the truth."""
    sweep: str | None = Field(None, min_length=1, max_length=100)
    """Name under which the tracker groups the runs of a sweep; null: the task's."""
