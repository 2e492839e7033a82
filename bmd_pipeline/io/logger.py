"""Metrics of a running stage: JSON lines on disk, and an external tracker as a courtesy."""

import hashlib
import json
import math
import os
import queue
import shutil
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import convert_os_errors, parse_json, read_file, write_text
from bmd_pipeline.io.provenance import measure_cpu_seconds

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads a metrics.jsonl: one object per report, numbers by metric, null where one was not finite.

    Raises:
        ArtifactError: it is missing or empty, or a line is damaged.
    """
    try:
        texts = read_file(path).decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from None
    if not texts:
        raise ArtifactError(f"{path} is empty; make it again")
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = parse_json(text)
            lines.append({**line, "step": int(line["step"])})
        except (ValueError, KeyError, TypeError):
            raise ArtifactError(f"{path}, line {number}: damaged; make the file again") from None
    return lines


PROJECT = "bmd-pipeline"
INIT_SECONDS = 20.0
"""How long wandb may try to reach its server."""
CLOSE_SECONDS = 60.0
"""How long the end of a run waits for what is still to be reported."""
FLUSH_SECONDS = 10
"""How long a number may wait until TensorBoard can read it."""
WAITING_REPORTS = 10_000
"""Reports that may wait; further ones are dropped."""
_TIMES = ("wall_s", "cpu_seconds")
"""What a line of metrics.jsonl holds beside its step and metrics."""


def make_run_id(place: str, group: str, config: Mapping[str, Any]) -> str:
    """The same for every attempt at the same job, which writes to the same place, so that a resumed job goes on in its
    run."""
    text = json.dumps([place, group, config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class WandbRun:
    """A run at wandb, offline unless WANDB_MODE says otherwise.

    A run that wandb does not go on with, as it never does offline, begins with what earlier attempts reported
    (`earlier`: lines of metrics.jsonl). It takes the place of what they left offline: uploaded beside it under the same
    id, each would hide a part of the other.

    Everything happens on a thread of its own, so that a tracker that fails, hangs or is out of reach costs the numbers
    it did not get and, at the end, a bounded wait. The first failure ends the reporting with one warning.
    """

    def __init__(
        self, run_id: str, name: str, group: str, config: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
    ) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        self._settings: dict[str, Any] = {
            "project": PROJECT,
            "name": name,
            "group": group,
            "config": dict(config),
            "id": run_id,
            "resume": "allow",
        }
        self._earlier = earlier
        self._reports: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        self._failure: str | None = None
        self._over = False
        self._thread = threading.Thread(target=self._report, name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float], wall_s: float) -> None:
        """Hands a report over; returns at once. wandb reads a clock of its own."""
        self._warn_of_failure()
        if not self._over and self._reports.qsize() < WAITING_REPORTS:
            self._reports.put((step, dict(metrics)))

    def finish(self) -> None:
        """Waits, but not for long, until everything is reported."""
        self._reports.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._failure = f"no answer within {CLOSE_SECONDS:g} s"
        self._warn_of_failure()
        self._over = True

    def _report(self) -> None:
        try:
            import wandb

            run = wandb.init(**self._settings, settings=wandb.Settings(init_timeout=INIT_SECONDS, silent=True))
            if not run.resumed:
                for line in self._earlier:
                    run.log(_take_metrics(line), step=line["step"])
                _remove_earlier_runs(Path(run.sync_dir), self._settings["id"])
            for step, metrics in iter(self._reports.get, None):
                run.log(metrics, step=step)
            run.finish()
        except Exception as error:  # whatever a tracker does, training goes on
            self._failure = (str(error).splitlines() or [type(error).__name__])[0]

    def _warn_of_failure(self) -> None:
        if self._failure is not None and not self._over:
            self._over = True
            warnings.warn(f"wandb is off for this run: {self._failure}", RuntimeWarning, stacklevel=4)


def _take_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """What was reported in a line of metrics.jsonl."""
    metrics = {name: value for name, value in line.items() if name not in ("step", *_TIMES)}
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _remove_earlier_runs(folder: Path, run_id: str) -> None:
    """Removes the folders of other attempts at the run in `folder` that are waiting beside it to be uploaded."""
    for other in folder.parent.glob(f"offline-run-*-{run_id}*"):
        if other.name != folder.name and (other / f"run-{run_id}.wandb").is_file():
            shutil.rmtree(other, ignore_errors=True)


class TensorBoardRun:
    """An event file for TensorBoard, in a folder of its own.

    Each attempt at a job writes what earlier ones reported (`earlier`: lines of metrics.jsonl) once more, since
    TensorBoard forgets what older files of a folder say about steps that a newer one begins again. The first failure
    ends the reporting with one warning.

    Args:
        folder: where the event file goes.
        config: settings it shows as a text.
        started: seconds since 1970 at which the first attempt would have begun, had it not been interrupted.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]], started: float
    ) -> None:
        self._writer: SummaryWriter | None = None
        self._started = started
        with self._warn_of_failure():
            from torch.utils import tensorboard

            self._writer = tensorboard.SummaryWriter(str(folder), purge_step=0, flush_secs=FLUSH_SECONDS)
            self._writer.add_text("settings", f"```json\n{json.dumps(dict(config), indent=2, default=str)}\n```")
        for line in earlier:
            self.log(line["step"], _take_metrics(line), line["wall_s"])

    def log(self, step: int, metrics: Mapping[str, float], wall_s: float) -> None:
        """Writes numbers, made `wall_s` seconds after the start."""
        with self._warn_of_failure():
            if self._writer is not None:
                for name, value in metrics.items():
                    self._writer.add_scalar(name, value, step, walltime=self._started + wall_s)

    def finish(self) -> None:
        """Closes the file."""
        with self._warn_of_failure():
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _warn_of_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a missing package, a full disk: training goes on
            self._writer = None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if isinstance(error, ModuleNotFoundError):
                reason += "; pip install tensorboard"
            warnings.warn(f"tensorboard is off for this run: {reason}", RuntimeWarning, stacklevel=5)


class Tracker(AbstractContextManager["Tracker"]):
    """Appends one JSON line per report: `{"step": …, "wall_s": …, "cpu_seconds": …, "<metric>": …}`.

    Both times go on where an interrupted run stopped. A number that is not finite is written as null, since JSON has
    none.

    Args:
        path: the JSON-lines file; lines beyond `resume_step` are dropped, the others kept.
        tracker: where it also reports, see `TensorBoardRun` and `WandbRun`.
        output: folder that gets TensorBoard's, `tensorboard`; that of `path` if None.
        name: what the external tracker calls this run.
        group: what it groups the run under.
        config: settings it shows beside the run.
        resume_step: last step of the progress that this run goes on from; 0 starts the file over.
    """

    def __init__(
        self,
        path: Path,
        tracker: Literal["none", "tensorboard", "wandb"] = "none",
        *,
        output: Path | None = None,
        name: str = "",
        group: str = "",
        config: Mapping[str, Any] | None = None,
        resume_step: int = 0,
    ) -> None:
        self._path = path
        kept = _read_lines(path, resume_step)
        elapsed = kept[-1] if kept else dict.fromkeys(_TIMES, 0.0)
        self._started = time.monotonic() - elapsed["wall_s"]
        self._cpu_started = measure_cpu_seconds() - elapsed["cpu_seconds"]
        write_text(path, "".join(map(_encode, kept)))  # whole: a run that is killed here loses no lines
        self._file = path.open("a", encoding="utf-8")
        self._external: TensorBoardRun | WandbRun | None = None
        if tracker == "tensorboard":
            begun = time.time() - elapsed["wall_s"]
            self._external = TensorBoardRun((output or path.parent) / "tensorboard", config or {}, kept, begun)
        elif tracker == "wandb":
            run_id = make_run_id(path.resolve().as_posix(), group, config or {})
            self._external = WandbRun(run_id, name, group, config or {}, kept)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics at a step; each line is on disk when this returns."""
        wall_s = round(time.monotonic() - self._started, 3)
        finite = {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}
        cpu_seconds = round(measure_cpu_seconds() - self._cpu_started, 3)
        with convert_os_errors(self._path):
            self._file.write(_encode({"step": step, "wall_s": wall_s, "cpu_seconds": cpu_seconds, **finite}))
            self._file.flush()
        if self._external is not None:
            self._external.log(step, metrics, wall_s)

    def close(self) -> None:
        """Closes the file and the external run; calling it twice is harmless."""
        with convert_os_errors(self._path):  # a full disk may have left something to write
            self._file.close()
        if self._external is not None:
            self._external.finish()
            self._external = None

    def __exit__(self, *_: object) -> None:
        self.close()


def _encode(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def _read_lines(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Lines up to a step; what follows a line that a killed run left half written is dropped."""
    lines: list[dict[str, Any]] = []
    if last_step < 1 or not path.exists():
        return lines
    with suppress(ValueError, KeyError, TypeError):
        for line in map(parse_json, read_file(path).decode("utf-8").splitlines()):
            if line["step"] > last_step:
                break
            lines.append({**line, **{name: float(line[name]) for name in _TIMES}})
    return lines
