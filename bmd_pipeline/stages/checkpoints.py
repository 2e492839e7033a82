"""Identity, records and checkpoints of a stage's run. Each stage packs its own state into a `Snapshot`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from bmd_pipeline.config.hashing import Stage, hash_values, source_hash, stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import SimulationError
from bmd_pipeline.io.files import remove_leftovers
from bmd_pipeline.io.layout import METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.io.logger import Tracker
from bmd_pipeline.io.progress import FolderLock, TrainingState, Wait
from bmd_pipeline.io.provenance import RunStart, describe_run
from bmd_pipeline.stages.console import Reporter, Stop, Stopped
from bmd_pipeline.tasks.registry import get_entry

Snapshot = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""A stage's state at a checkpoint: tensors, and values as JSON."""


def make_identity(config: RunConfig, stage: Stage, *, method: str | None = None, **parts: Any) -> str:
    """Hash of what a stage computes; progress is used only by a job that computes the same.

    `parts` are what it depends on beside its settings and its code, as JSON: its seed, the hashes of its inputs.
    """
    source = source_hash(stage, get_entry(config.task.name).package)
    return hash_values({"config": stage_hash(config, stage, method), "method": method, "source": source, **parts})


def describe_stage(
    config: RunConfig,
    stage: Stage,
    *,
    inputs: Mapping[str, Path],
    start: RunStart,
    seed: int | None = None,
    method: str | None = None,
    device: torch.device | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """What is recorded of a stage's run beside its outputs.

    It read `inputs`, files and folders by name, as they were at its `start`, and computed with `seed` (None: the run's)
    on `device` (None: the CPU). `extra` is what else it has to say, as JSON.
    """
    extra = {"preset": config.preset, **({"method": method} if method else {}), **extra}
    return describe_run(
        stage=stage,
        task=config.task.name,
        config=stage_slice(config, stage, method),
        config_hash=stage_hash(config, stage, method),
        seed=config.seed if seed is None else seed,
        inputs=inputs,
        start=start,
        device=device,
        extra=extra,
    )


def open_tracker(
    config: RunConfig, output: Path, settings: Mapping[str, Any], resume_step: int, *, folder: Path | None = None
) -> Tracker:
    """Metrics of the stage that writes the folder `output`, there or in another folder; see `Tracker`."""
    return Tracker(
        (folder or output) / METRICS_FILE,
        config.execution.tracker,
        output=output,
        name=output.as_posix(),
        group=config.execution.group or config.task.name,
        config=settings,
        resume_step=resume_step,
    )


class Checkpoints(TrainingState):
    """Progress of one stage in a locked folder beside its output, gone once the stage has finished.

    Entering the `with` block removes an old run.json: from there on the output is not complete. It saves at the first
    point after `minutes` have passed since the last checkpoint; `clock` tells seconds that never jump, for tests. For
    `required` see `FolderLock`.

    Raises:
        ArtifactError: another job writes the same folder, there are no locks, or it can't be written.
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
        required: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(Layout.state(output), identity, wait, required=required)
        self.stop = stop
        self._output = output
        self._seconds = 60.0 * minutes
        self._clock = clock
        self._saved_at = clock()
        self._saved_step: int | None = None
        self._latest: tuple[int, Callable[[], Snapshot]] | None = None
        remove_leftovers(output)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The snapshot to go on from, or None; raises `ArtifactError` if it is damaged."""
        saved = super().load()
        if saved is not None:
            self._saved_step = saved[1]["step"]
        return saved

    def save_if_due(self, step: int, pack: Callable[[], Snapshot], *, save: bool = False) -> None:
        """Marks a point from which the stage can go on: saves if it is time, and stops here if it is asked to.

        If the stage is stopped before the next point, `pack` is called then, so what it reads must not change between
        two points. `step` must rise. `save` forces saving.

        Raises:
            Stopped: after saving.
        """
        self._latest = (step, pack)
        if save or self._clock() - self._saved_at >= self._seconds or self.stop.reason is not None:
            self._save()
        self.stop.check()

    def discard(self) -> None:
        """Removes the progress: the stage has written its outputs."""
        self._latest = None
        super().discard()

    def __enter__(self) -> Self:
        (self._output / RUN_FILE).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        try:
            if isinstance(error, Stopped | SimulationError):
                self._save()
        finally:
            self.release()

    def _save(self) -> None:
        if self._latest is None or self._latest[0] == self._saved_step:
            return
        step, pack = self._latest
        tensors, values = pack()
        self.save(tensors, {**values, "step": step})
        self._saved_step, self._saved_at = step, self._clock()


def open_checkpoints(
    config: RunConfig, stage: Stage, output: Path, stop: Stop, reporter: Reporter, **parts: Any
) -> Checkpoints:
    """Checkpoints of a stage as often as the settings say; for `parts` see `make_identity`."""
    identity, wait = make_identity(config, stage, **parts), _make_wait(config, stop.check, reporter)
    minutes, required = config.execution.checkpoint_minutes, config.execution.require_lock
    return Checkpoints(output, identity, stop, minutes=minutes, wait=wait, required=required)


def lock_folder(config: RunConfig, stage: Stage, folder: Path, reporter: Reporter, **parts: Any) -> FolderLock:
    """Holds a folder that a stage writes without checkpoints, rid of what killed writers left there."""
    wait = _make_wait(config, lambda: None, reporter)  # signals end such a stage at once
    identity, required = make_identity(config, stage, **parts), config.execution.require_lock
    lock = FolderLock(Layout.state(folder), identity, wait, required=required)
    remove_leftovers(folder)
    return lock


def _make_wait(config: RunConfig, check: Callable[[], None], reporter: Reporter) -> Wait:
    return Wait(60.0 * config.execution.wait_minutes, check, reporter.log)
