"""Resumable progress of a training stage: one file, written whole, owned by one job at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from bmd_pipeline.artifacts.hashing import hash_tensors
from bmd_pipeline.artifacts.lock import FolderLock, Wait
from bmd_pipeline.artifacts.weights import read_weights, save_weights
from bmd_pipeline.errors import ArtifactError


class TrainingState:
    """Progress of one job in a folder that is no rule's output.

    Args:
        folder: where it lives; locked until `close`.
        config_hash: what the job computes; progress of anything else is ignored.
        wait: patience with another job that is using the folder.

    Raises:
        ArtifactError: another job is using the folder.
        AlreadyWritten: one that computes the same was using it, and has finished meanwhile.
    """

    def __init__(self, folder: Path, config_hash: str, wait: Wait | None = None) -> None:
        self.folder = folder
        self.path = folder / "state.safetensors"
        self._config_hash = config_hash
        self._lock = FolderLock(folder, config_hash, wait)

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replaces the saved progress.

        Args:
            tensors: weights, optimizer moments, generator states.
            values: everything else, as JSON; a training loop puts its `step` there.
        """
        metadata = {"config_hash": self._config_hash, "values": json.dumps(values)}
        metadata["digest"] = _digest(tensors, metadata)
        save_weights(self.path, tensors, metadata)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The saved tensors and values, or None if there are none for this config.

        Raises:
            ArtifactError: the progress is damaged; training on from it would mislead.
        """
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read_weights(self.path)
            if metadata.pop("digest") != _digest(tensors, metadata):
                raise ArtifactError("its content is not what was saved")
            if metadata["config_hash"] != self._config_hash:
                return None
            return tensors, json.loads(metadata["values"])
        except (ArtifactError, KeyError, ValueError):
            raise ArtifactError(
                f"saved progress {self.path} is damaged; delete {self.folder} to start this stage over"
            ) from None

    def discard(self) -> None:
        """Removes the folder once the stage has written its outputs, and gives the lock back."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Gives the lock back and keeps the progress."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    text = hash_tensors(tensors) + json.dumps(metadata, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def add_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names under which several tensor groups share one file: `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def take_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The group that `add_prefix` named."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits an optimizer's state into tensors (`<parameter>.<name>`) and JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, entry in entries.items():
            if isinstance(entry, Tensor):
                tensors[f"{index}.{name}"] = entry
            else:
                scalars.setdefault(str(index), {})[name] = entry
    return tensors, {"scalars": scalars, "param_groups": state["param_groups"]}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Restores what `pack_optimizer` took from an optimizer of the same parameters; the tensors stay as they are."""
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in values["scalars"].items()}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor.clone()  # steps change it in place
    optimizer.load_state_dict({"state": state, "param_groups": values["param_groups"]})
