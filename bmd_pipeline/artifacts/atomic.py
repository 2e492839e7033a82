"""Files and folders that appear whole or not at all: written beside their place, synced, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bmd_pipeline.errors import ArtifactError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole, making its folder where needed.

    Raises:
        ArtifactError: it can't be written; what was there before stays.
    """
    # The process id keeps two writers apart; the later rename wins, and either way the file is whole.
    sibling = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with sibling.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sibling.replace(path)
        except BaseException:
            with suppress(OSError):
                sibling.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns what the file system refuses (full, read-only, a file in a folder's place) into a line that names `path`.

    Raises:
        ArtifactError: in place of an `OSError` from within.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ArtifactError(f"{path} can't be written: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a JSON document whole; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Yields an empty sibling folder that takes the place of `path` once the block succeeded.

    Only one writer per path at a time: callers hold the lock of their stage. What a killed writer left
    behind is removed by the next one.

    Raises:
        ArtifactError: the file system refused something, in the block or here.
    """
    partial, replaced = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced")
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
            partial.mkdir()
            yield partial
            for entry in (*partial.rglob("*"), partial):
                _sync_folder(entry) if entry.is_dir() else _sync(entry)
            # A folder can't be renamed onto a filled one: between the two renames nothing is at `path`,
            # which reads as "not made yet", never as something half made.
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes half-written files that killed writers left in a folder; call it with the folder's lock in hand."""
    with naming(folder):
        for leftover in folder.glob(".*.[0-9]*.tmp"):
            leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    try:
        _sync(path)
    except OSError:  # some network file systems refuse to sync folders; the rename itself has happened
        return
