"""When a stage saves its progress, and that nothing is lost when it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from bmd_pipeline.config.hashing import Stage, hash_values, source_hash, stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import SimulationError
from bmd_pipeline.io.files import remove_leftovers
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.io.progress import TrainingState, Wait
from bmd_pipeline.stages.console import Reporter, Stop, Stopped
from bmd_pipeline.tasks.registry import get_entry

Snapshot = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Everything that what is still to come depends on: tensors, and values as JSON."""


def make_identity(config: RunConfig, stage: Stage, *, method: str | None = None, **parts: Any) -> str:
    """Hash of what a stage computes; progress is used only by a job that computes the same.

    Args:
        config: the run.
        stage: the stage.
        method: its fine-tuning method.
        parts: what else it depends on, as JSON: its seed, the hashes of its inputs.
    """
    source = source_hash(stage, get_entry(config.task.name).package)
    return hash_values({"config": stage_hash(config, stage, method), "method": method, "source": source, **parts})


def make_wait(config: RunConfig, stop: Stop, reporter: Reporter) -> Wait:
    """As long as `execution.wait_minutes` says, unless the stage is asked to stop."""
    return Wait(60.0 * config.execution.wait_minutes, stop.check, reporter.log)


class Checkpoints(TrainingState):
    """Progress of one stage in a locked folder beside its output, gone once the stage has finished.

    Args:
        output: folder that the stage writes.
        identity: what it computes, from `make_identity`.
        stop: who may ask it to stop.
        minutes: longest time between two checkpoints.
        wait: patience with another job that writes the same folder.
        clock: seconds that never jump, for tests.

    Raises:
        ArtifactError: another job writes the same folder, or it can't be written.
        AlreadyWritten: one that computes the same did, and has finished meanwhile.
    """

    def __init__(
        self,
        output: Path,
        identity: str,
        stop: Stop,
        *,
        minutes: float,
        wait: Wait | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(Layout.state(output), identity, wait)
        self.stop = stop
        self._seconds = 60.0 * minutes
        self._clock = clock
        self._saved_at = clock()
        self._saved_step: int | None = None
        self._latest: tuple[int, Callable[[], Snapshot]] | None = None
        remove_leftovers(output)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The snapshot to go on from, or None.

        Raises:
            ArtifactError: it is damaged.
        """
        saved = super().load()
        if saved is not None:
            self._saved_step = saved[1]["step"]
        return saved

    def save_if_due(self, step: int, pack: Callable[[], Snapshot], *, save: bool = False) -> None:
        """Marks a point from which the stage can go on: saves if it is time, and stops here if it is asked to.

        Should the stage be stopped before it reaches the next one, this one is saved.

        Args:
            step: number of this point; they rise.
            pack: makes the snapshot. What it reads must be the same until the next point.
            save: save now, whatever the time.

        Raises:
            Stopped: after saving.
        """
        self._latest = (step, pack)
        if save or self._is_due():
            self._save()
        self.stop.check()

    def discard(self) -> None:
        """Removes the progress: the stage has written its outputs."""
        self._latest = None
        super().discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Stopped | SimulationError):
                self._save()
        finally:
            self.release()

    def _is_due(self) -> bool:
        return self._clock() - self._saved_at >= self._seconds or self.stop.reason is not None

    def _save(self) -> None:
        if self._latest is None or self._latest[0] == self._saved_step:
            return
        step, pack = self._latest
        tensors, values = pack()
        self.save(tensors, {**values, "step": step})
        self._saved_step, self._saved_at = step, self._clock()
