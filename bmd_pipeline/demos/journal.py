"""Finished attempts of a collection, kept as they come, so that a killed collection loses none.

The file is a sequence of records: SHA-256 of the payload, its length (8 bytes, little-endian), payload. The first
payload says what is being collected, every other one is an attempt as safetensors. A record that a killed job left
half written, or that was damaged, doesn't match its hash: it and what follows it are collected again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from safetensors.numpy import load, save

from bmd_pipeline.demos.quota import Attempt
from bmd_pipeline.io.files import naming
from bmd_pipeline.tasks.base import Episode

_HASH, _LENGTH = 32, 8


class Journal:
    """An open journal. One job at a time: callers hold the lock of their stage.

    Args:
        path: the file; made where it is missing.
        identity: what is being collected; attempts at anything else are thrown away.

    Attributes:
        episodes: what an earlier job finished, by attempt; failures without their data.

    Raises:
        ArtifactError: the file can't be read or written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self.episodes: dict[Attempt, Episode] = {}
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            sound = self._read(content, identity.encode())
            self._file = path.open("r+b" if sound else "wb", buffering=0)
            self._file.truncate(sound)
            self._file.seek(sound)
        if not sound:
            self._append(identity.encode())

    def add(self, attempt: Attempt, episode: Episode) -> None:
        """Keeps a finished attempt; of failures only that they failed."""
        kept = slice(None if episode.success else 0)
        arrays = {
            "attempt": np.array([attempt.index, attempt.behaviour, episode.success, episode.behaviour]),
            "obs": np.ascontiguousarray(episode.obs[kept]),
            "action": np.ascontiguousarray(episode.action[kept]),
        }
        self._append(save(arrays))

    def discard(self) -> None:
        """Removes the file: the store is written."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Brings everything to disk; calling it twice is harmless."""
        if not self._file.closed:
            with naming(self._path):
                os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, payload: bytes) -> None:
        record = memoryview(hashlib.sha256(payload).digest() + len(payload).to_bytes(_LENGTH, "little") + payload)
        with naming(self._path):
            while record:  # a disk that fills up takes a part
                record = record[self._file.write(record) or 0 :]

    def _read(self, content: bytes, identity: bytes) -> int:
        """Takes in the sound records; returns where they end, 0 if this is no journal of the same collection."""
        end = 0
        for payload in _split(content):
            if end == 0:
                if payload != identity:
                    return 0
            else:
                arrays = load(payload)
                index, behaviour, success, shown = (int(value) for value in arrays["attempt"])
                episode = Episode(arrays["obs"], arrays["action"], bool(success), shown)
                self.episodes[Attempt(index, behaviour)] = episode
            end += _HASH + _LENGTH + len(payload)
        return end


def _split(content: bytes) -> Iterator[bytes]:
    """Payloads up to the first record that is not whole."""
    start = 0
    while start + _HASH + _LENGTH <= len(content):
        length = int.from_bytes(content[start + _HASH : start + _HASH + _LENGTH], "little")
        first = start + _HASH + _LENGTH
        payload = content[first : first + length]
        if len(payload) != length or hashlib.sha256(payload).digest() != content[start : start + _HASH]:
            return
        yield payload
        start = first + length
