"""An exclusive lock on a folder, so that two jobs never write the same progress."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bmd_pipeline.errors import ArtifactError

POLL_S = 1.0


class AlreadyWritten(Exception):  # noqa: N818 - nothing went wrong
    """While this job waited, another one wrote the same; the message says what."""


@dataclass(frozen=True)
class Wait:
    """Patience with another job that writes the same output.

    Attributes:
        seconds: how long.
        check: called while waiting; raises to end it.
        tell: takes one line for people.
    """

    seconds: float
    check: Callable[[], None]
    tell: Callable[[str], None]


class FolderLock:
    """Holds `folder/lock` until `release`; the operating system frees it when the process dies.

    Args:
        folder: made if it isn't there.
        identity: what the job computes.
        wait: patience; none without it.

    Raises:
        ArtifactError: another job holds it, or the folder can't be made or written.
        AlreadyWritten: a job that computes the same held it and has finished meanwhile.
    """

    def __init__(self, folder: Path, identity: str = "", wait: Wait | None = None) -> None:
        self._path = folder / "lock"
        self._file: int | None = None
        self._identity = identity
        try:
            self._file = self._take(wait)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()} {identity}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise ArtifactError(f"{self._path} can't be written: {error.strerror}") from None

    def _take(self, wait: Wait | None) -> int:
        folder = self._path.parent
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                owner = self._lock(file, wait)
                if os.fstat(file).st_ino == self._path.stat().st_ino:
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            # The job that held it has finished and removed the file: this lock locks nothing.
            os.close(file)
            if wait is not None and owner == self._identity:
                raise AlreadyWritten(f"another job has written {folder.parent} meanwhile")

    def _lock(self, file: int, wait: Wait | None) -> str | None:
        """Locks an open file. Returns what the job computed that had to be waited for; None: nobody."""
        waited_for, patient_until = None, None
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return waited_for
            except BlockingIOError:
                process, _, waited_for = os.pread(file, 256, 0).decode(errors="replace").strip().partition(" ")
                busy = f"another job is writing {self._path.parent.parent} (process {process or 'unknown'}"
                if patient_until is None:
                    patient_until = time.monotonic() + (wait.seconds if wait else 0.0)
                    if wait is not None and wait.seconds > 0.0:
                        wait.tell(f"{busy}); waiting for it")
                if wait is None or time.monotonic() >= patient_until:
                    raise ArtifactError(f"{busy} holds {self._path}); wait for it or stop it") from None
                wait.check()
                time.sleep(POLL_S)

    def discard(self) -> None:
        """Removes the lock, and the folder if nothing else is in it."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._path.parent.rmdir()
        self.release()

    def release(self) -> None:
        """Gives the lock back; calling it twice is harmless."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
