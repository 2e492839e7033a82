"""What a killed stage resumes from: a locked folder, and one file of progress in it, written whole."""

import errno
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bmd_pipeline.errors import AlreadyWritten, ArtifactError
from bmd_pipeline.io.files import hash_tensors, read_weights, remove_leftovers, save_weights
from bmd_pipeline.io.layout import LOCK_FILE, METRICS_FILE

POLL_S = 1.0
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems that have no locks answer."""


@dataclass(frozen=True)
class Wait:
    """How to wait for another job that holds the lock."""

    seconds: float
    check: Callable[[], None]  # called while waiting; raises to end it
    log: Callable[[str], None]  # takes one line for people


class FolderLock:
    """Holds a lock on a folder, made if it isn't there, until `release`; the system frees it when the process dies.

    Where the file system has no locks it is refused, or nothing is held if none is `required`.

    Raises:
        ArtifactError: another job holds it, there are no locks, or the folder can't be made or written.
        AlreadyWritten: a job that computes the same (`identity`) held it and has finished meanwhile.
    """

    def __init__(self, folder: Path, identity: str = "", wait: Wait | None = None, *, required: bool = True) -> None:
        self.folder = folder
        self._required = required
        self._path = folder / LOCK_FILE
        self._file: int | None = None
        self._identity = identity
        try:
            self._file = self._take(wait)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()} {identity}\n".encode(), 0)
        except OSError as error:
            self.release()
            reason = "it is a link; remove it" if error.errno == errno.ELOOP else error.strerror
            raise ArtifactError(f"{self._path} can't be written: {reason}") from None

    def _take(self, wait: Wait | None) -> int:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            # never through a link, nor into a pipe: what is there gets overwritten
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            with ExitStack() as stack:
                stack.callback(os.close, file)
                if not stat.S_ISREG((state := os.fstat(file)).st_mode) or state.st_nlink > 1:
                    raise OSError(errno.EEXIST, "it is another file too, or no file; remove it")
                owner = self._lock(file, wait)
                with suppress(FileNotFoundError):
                    if os.fstat(file).st_ino == self._path.stat().st_ino:
                        stack.pop_all()
                        return file
            # The job that held it has finished and removed the file: this lock locks nothing.
            if owner == self._identity:
                raise AlreadyWritten(f"another job has written {self.folder.parent} meanwhile")

    def _lock(self, file: int, wait: Wait | None) -> str | None:
        """Locks an open file. Returns the identity of the job that it waited for, None if the lock was free."""
        waited_for, started = None, time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return waited_for
            except BlockingIOError:
                is_first = waited_for is None
                process, _, waited_for = os.pread(file, 256, 0).decode(errors="replace").strip().partition(" ")
                busy = f"another job is writing {self.folder.parent} (process {process or 'unknown'}"
                if wait is None or time.monotonic() - started >= wait.seconds:
                    raise ArtifactError(f"{busy} holds {self._path}); wait for it or stop it") from None
                if is_first:
                    wait.log(f"{busy}); waiting for it")
                wait.check()
                time.sleep(POLL_S)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                if not self._required:
                    return waited_for
                FolderLock.discard(self)  # what was made a moment ago
                raise ArtifactError(
                    f"{self.folder.parent} is on a file system without locks (flock: {error.strerror}), which keep two "
                    "jobs from writing the same; write elsewhere, or set execution.require_lock to false and start "
                    "no job twice"
                ) from None

    def discard(self) -> None:
        """Removes the lock, and the folder if nothing else is in it."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
        self.release()

    def release(self) -> None:
        """Gives the lock back; calling it twice is harmless."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.release()


class TrainingState(FolderLock):
    """Progress of one job in a locked folder that is no rule's output: one file, written whole.

    Progress of a job that computes anything else is ignored.
    """

    def __init__(self, folder: Path, identity: str, wait: Wait | None = None, *, required: bool = True) -> None:
        super().__init__(folder, identity, wait, required=required)
        self.path = folder / "state.safetensors"

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Replaces the saved progress: tensors, and everything else as JSON values, a training loop's `step` too."""
        metadata = {"config_hash": self._identity, "values": json.dumps(values)}
        metadata["digest"] = _digest(tensors, metadata)
        save_weights(self.path, tensors, metadata)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The saved tensors and values, or None if there are none of what this job computes.

        Raises:
            ArtifactError: they are damaged.
        """
        if not self.path.exists():
            return None
        try:
            tensors, metadata = read_weights(self.path)
            if metadata.pop("digest") != _digest(tensors, metadata):
                raise ArtifactError("its content is not what was saved")
            return (tensors, json.loads(metadata["values"])) if metadata["config_hash"] == self._identity else None
        except (ArtifactError, KeyError, ValueError):
            raise ArtifactError(
                f"saved progress {self.path} is damaged; delete {self.folder} to start this stage over"
            ) from None

    def discard(self) -> None:
        """Removes the progress once the stage has written its outputs, as `FolderLock.discard` does the lock."""
        remove_leftovers(self.folder)
        for name in (self.path.name, METRICS_FILE):
            (self.folder / name).unlink(missing_ok=True)
        super().discard()


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
    """Splits the state of torch's Adam into tensors, named `<parameter index>.<name>`, and JSON values, its parameter
    groups."""
    state = optimizer.state_dict()
    tensors = {f"{index}.{name}": part for index, parts in state["state"].items() for name, part in parts.items()}
    return tensors, {"param_groups": state["param_groups"]}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Restores what `pack_optimizer` took from an optimizer of the same parameters; the tensors stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor.clone()  # steps change it in place
    optimizer.load_state_dict({"state": state, "param_groups": values["param_groups"]})
