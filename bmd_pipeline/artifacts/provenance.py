"""`run.json`: how an output folder came to be, written last, so that its presence means "complete"."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bmd_pipeline.artifacts.atomic import write_json
from bmd_pipeline.artifacts.cpu_time import measure_cpu_seconds
from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.artifacts.hashing import hash_path
from bmd_pipeline.artifacts.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.errors import ArtifactError

SCHEMA_VERSION = 1
_PACKAGES = (
    *("bmd-pipeline", "torch", "numpy", "scikit-learn", "zarr", "safetensors", "pydantic"),
    *("mani_skill", "sapien", "mujoco", "gymnasium-robotics"),
)


def describe_run(
    *,
    stage: str,
    task: str,
    config: Mapping[str, Any],
    config_hash: str,
    seed: int,
    inputs: Mapping[str, Path],
    started: float,
    device: torch.device | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that is known about how a stage ran, except its outputs.

    `wall_s` and `cpu_seconds` are those of the job that finished it; the metrics.jsonl of a training stage counts both
    over all of its jobs.

    Args:
        stage: the stage.
        task: the task.
        config: the stage's slice of the resolved config.
        config_hash: hash of that slice.
        seed: seed of this run.
        inputs: files and folders it read, by name.
        started: `time.time()` at its start.
        device: where it computed; the CPU if not given.
        extra: what else the stage has to say.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "task": task,
        "seed": seed,
        "config_hash": config_hash,
        "config": dict(config),
        "inputs": {name: {"path": str(path), "sha256": hash_path(path)} for name, path in inputs.items()},
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": git_commit(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _describe_device(device),
        "threads": torch.get_num_threads(),
        "wall_s": round(max(0.0, time.time() - started), 3),  # somebody may have set the clock back
        "cpu_seconds": round(measure_cpu_seconds(), 3),
        **(extra or {}),
    }


def write_run(
    directory: Path,
    *,
    stage: str,
    task: str,
    config: Mapping[str, Any],
    config_hash: str,
    seed: int,
    inputs: Mapping[str, Path],
    outputs: Sequence[str] | None = None,
    started: float,
    device: torch.device | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `run.json` beside the finished outputs of a stage, with their hashes.

    Arguments as in `describe_run`, and `outputs`, the names of the stage's own files if the folder holds others
    too. Call it after everything else is written.

    Returns:
        Path of the file.
    """
    document = describe_run(
        stage=stage,
        task=task,
        config=config,
        config_hash=config_hash,
        seed=seed,
        inputs=inputs,
        started=started,
        device=device,
        extra=extra,
    )
    progress = Layout.state(directory).name
    document["outputs"] = {
        path.name: hash_path(path)
        for path in sorted(directory.iterdir())
        if path.name not in (RUN_FILE, progress)
        and not path.name.startswith(".")
        and (outputs is None or path.name in outputs)
    }
    path = directory / RUN_FILE
    write_json(path, document)
    return path


def read_run(directory: Path) -> dict[str, Any]:
    """Reads the `run.json` of a folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_json(directory / RUN_FILE, f"record of {directory}")


def require_run(directory: Path, stage: str, task: str, *, command: str | None = None) -> dict[str, Any]:
    """Checks that a folder is the finished output of a stage for a task, and that its files are still the same.

    Args:
        directory: the folder.
        stage: the stage that must have made it.
        task: the task it must be for.
        command: how to make it, for the message; guessed from stage and task if not given.

    Raises:
        ArtifactError: it is unfinished or damaged, or was made by another stage or for another task.
    """
    command = command or f"bmd-pipeline {stage} --task {task}"
    if not (directory / RUN_FILE).is_file():
        raise ArtifactError(f"{directory / RUN_FILE} is missing: make it with `{command}`")
    record = read_run(directory)
    if record.get("task") != task:
        raise ArtifactError(f"{directory} was made for task {record.get('task')}, not for {task}")
    if record.get("stage") != stage:
        raise ArtifactError(f"{directory} was made by stage {record.get('stage')}, not by {stage}")
    outputs = record.get("outputs", {})
    if not isinstance(outputs, dict):
        raise ArtifactError(f"{directory / RUN_FILE} is damaged (outputs is no object); make it again with `{command}`")
    for name, expected in outputs.items():
        path = directory / name
        if name != METRICS_FILE and (not path.exists() or hash_path(path) != expected):  # metrics decide nothing
            raise ArtifactError(
                f"{path} is damaged or edited: not what {RUN_FILE} records; make it again with `{command}`"
            )
    return record


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """Commit of the source tree this package runs from, "-dirty" if edited; None for an installed package."""
    here = Path(__file__)
    try:
        # An environment inside somebody's repository is not that repository's code: tracked files only.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _describe_device(device: torch.device | None) -> str:
    if device is not None and device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    ).stdout
