"""An exclusive lock on a folder, so that two jobs never write the same progress."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bmd_pipeline.errors import ArtifactError


class FolderLock:
    """Holds `folder/lock` until `release`; the operating system frees it when the process dies.

    Raises:
        ArtifactError: another job holds it, or the folder can't be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file: int | None = None
        try:
            self._file = self._take(folder)
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())
        except OSError as error:
            self.release()
            raise ArtifactError(f"{self._path} can't be written: {error.strerror}") from None

    def _take(self, folder: Path) -> int:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino == self._path.stat().st_ino:
                    return file
            except BlockingIOError:
                owner = os.read(file, 32).decode(errors="replace").strip()
                os.close(file)
                raise ArtifactError(
                    f"another job is writing {folder.parent} (process {owner or 'unknown'} holds {self._path}); "
                    "wait for it or stop it"
                ) from None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            # The job that held it removed the file between our opening and our locking it: this lock locks nothing.
            os.close(file)

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
