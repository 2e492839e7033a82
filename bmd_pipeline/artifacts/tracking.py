"""Metrics of a running stage: JSON lines on disk are the truth, an external tracker is a courtesy."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from bmd_pipeline.artifacts.atomic import naming, write_text
from bmd_pipeline.artifacts.cpu_time import measure_cpu_seconds
from bmd_pipeline.artifacts.wandb_run import WandbRun


class Tracker:
    """Appends one JSON line per report: `{"step": …, "wall_s": …, "cpu_seconds": …, "<metric>": …}`.

    Both times go on where an interrupted run stopped.

    A number that is not finite is written as null, since JSON has none.

    Args:
        path: the JSON-lines file; lines beyond `resume_step` are dropped, the others kept.
        tracker: `wandb` also reports there, offline unless WANDB_MODE says otherwise. Its failures are
            one warning and never stop a run.
        name: what the external tracker calls this run; no other job may have it.
        group: what it groups the run under.
        config: settings it shows beside the run.
        resume_step: last step of the progress that this run goes on from; 0 starts the file over.
    """

    def __init__(
        self,
        path: Path,
        tracker: Literal["none", "wandb"] = "none",
        *,
        name: str = "",
        group: str = "",
        config: Mapping[str, Any] | None = None,
        resume_step: int = 0,
    ) -> None:
        self._path = path
        kept = _read_lines(path, resume_step)
        elapsed = kept[-1] if kept else {"wall_s": 0.0, "cpu_seconds": 0.0}
        self._started = time.monotonic() - elapsed["wall_s"]
        self._cpu_started = measure_cpu_seconds() - elapsed["cpu_seconds"]
        write_text(path, "".join(map(_encode, kept)))  # whole: a run that is killed here loses no lines
        self._file = path.open("a", encoding="utf-8")
        self._external = WandbRun(name, group, config or {}) if tracker == "wandb" else None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics at a step; each line is on disk when this returns."""
        wall_s = round(time.monotonic() - self._started, 3)
        finite = {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}
        cpu_seconds = round(measure_cpu_seconds() - self._cpu_started, 3)
        self._write({"step": step, "wall_s": wall_s, "cpu_seconds": cpu_seconds, **finite})
        if self._external is not None:
            self._external.log(step, metrics)

    def close(self) -> None:
        """Closes the file and the external run; calling it twice is harmless."""
        with naming(self._path):  # a full disk may have left something to write
            self._file.close()
        if self._external is not None:
            self._external.finish()
            self._external = None

    def _write(self, line: Mapping[str, Any]) -> None:
        with naming(self._path):
            self._file.write(_encode(line))
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encode(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _read_lines(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Lines up to a step; what follows a line that a killed run left half written is dropped."""
    lines: list[dict[str, Any]] = []
    if last_step < 1 or not path.exists():
        return lines
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
            if line["step"] > last_step:
                break
            lines.append({"wall_s": 0.0, "cpu_seconds": 0.0, **line})
        except (ValueError, KeyError, TypeError):
            break
    return lines
