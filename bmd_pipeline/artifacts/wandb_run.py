"""A run at wandb, as a courtesy: offline unless WANDB_MODE says otherwise, and never in the way.

Everything happens on a thread of its own, so that a tracker that fails, hangs or is out of reach costs the numbers it
didn't get and, at the end, a bounded wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import warnings
from collections.abc import Mapping
from typing import Any

PROJECT = "bmd-pipeline"
INIT_SECONDS = 20.0
"""How long wandb may try to reach its server."""
CLOSE_SECONDS = 60.0
"""How long the end of a run waits for what is still to be reported."""
WAITING_REPORTS = 10_000
"""Reports that may wait; further ones are dropped."""


def make_run_id(name: str, group: str, config: Mapping[str, Any]) -> str:
    """The same for every attempt at the same job, so that a resumed job goes on in its run."""
    text = json.dumps([name, group, config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class WandbRun:
    """Reports from a thread; the first failure ends the reporting with one warning.

    Args:
        name: what wandb calls the run.
        group: what it groups the run under.
        config: settings it shows beside the run.
    """

    def __init__(self, name: str, group: str, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        self._settings: dict[str, Any] = {
            "project": PROJECT,
            "name": name,
            "group": group,
            "config": dict(config),
            "id": make_run_id(name, group, config),
            "resume": "allow",
        }
        self._reports: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._failure: str | None = None
        self._over = False
        self._thread = threading.Thread(target=self._report, name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands a report over; returns at once."""
        self._tell_failure()
        if not self._over and self._reports.qsize() < WAITING_REPORTS:
            self._reports.put((step, dict(metrics)))

    def finish(self) -> None:
        """Waits, but not for long, until everything is reported."""
        self._reports.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._failure = f"no answer within {CLOSE_SECONDS:g} s"
        self._tell_failure()
        self._over = True

    def _report(self) -> None:
        try:
            import wandb

            run = wandb.init(**self._settings, settings=wandb.Settings(init_timeout=INIT_SECONDS, silent=True))
            while (report := self._reports.get()) is not None:
                step, metrics = report
                run.log(metrics, step=step)
            run.finish()
        except Exception as error:  # whatever a tracker does, training goes on
            self._failure = (str(error).splitlines() or [type(error).__name__])[0]

    def _tell_failure(self) -> None:
        if self._failure is not None and not self._over:
            self._over = True
            warnings.warn(f"wandb is off for this run: {self._failure}", RuntimeWarning, stacklevel=4)
