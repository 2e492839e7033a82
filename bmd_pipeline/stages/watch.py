"""Progress of running jobs, read from their metrics files. Takes no locks and writes nothing."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmd_pipeline.errors import BMDError
from bmd_pipeline.io.layout import EVAL_FILE, METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.metrics.schemas import Evaluation, load_document

SILENT_SECONDS = 600.0
"""A job that hasn't reported for so long is silent: slow, waiting for its next attempt, or dead."""
TAIL_BYTES = 16_384
"""Enough for the last two reports."""
STEPS_DONE = re.compile(r"^(\d+) of (\d+) steps", re.MULTILINE)


@dataclass(frozen=True)
class JobProgress:
    """What one job last said."""

    job: str  # its folder below results/
    state: str  # `running`, `silent` or `done`
    age: float  # seconds since the last report
    step: int | None = None  # gradient steps or iterations so far; None once only an evaluation is there
    rate: float | None = None  # control steps per second, or steps per second where nothing is simulated
    unit: str = ""  # of the rate
    episode_return: float | None = None  # mean return of the last rollout
    success: float | None = None  # success rate of the last rollout; of the evaluation once there is one
    information: float | None = None  # mutual information of codes and behaviour in nats
    solved: tuple[float, int] | None = None  # solved modes and modes of the task, from the evaluation


def list_progress(layout: Layout, *, now: float | None = None) -> list[JobProgress]:
    """All jobs that have reported anything, the latest first; `now` is Unix time, for tests."""
    results = layout.overview().parent
    now = time.time() if now is None else now
    folders = {_owner(path) for path in results.rglob(METRICS_FILE)} | {
        path.parent for path in results.glob(f"*/**/{EVAL_FILE}") if path.parent.name.startswith("seed")
    }
    found = (_read_job(folder, results, now) for folder in folders)
    return sorted((job for job in found if job is not None), key=lambda job: (job.age, job.job))


def count_jobs(folder: Path) -> tuple[int, int] | None:
    """Finished and planned jobs of the last Snakemake run in a folder; None if it has finished none."""
    logs = sorted((folder / ".snakemake" / "log").glob("*.snakemake.log"))
    steps = STEPS_DONE.findall(logs[-1].read_text(encoding="utf-8", errors="replace")) if logs else []
    return (int(steps[-1][0]), int(steps[-1][1])) if steps else None


def _owner(metrics: Path) -> Path:
    """The output folder that a file of metrics belongs to; pre-training moves it there at its end."""
    folder = metrics.parent
    return folder.parent if folder == Layout.state(folder.parent) else folder


def _read_job(folder: Path, results: Path, now: float) -> JobProgress | None:
    job = folder.relative_to(results).as_posix()
    newest, metrics = 0.0, None
    for path in (folder / METRICS_FILE, Layout.state(folder) / METRICS_FILE):
        try:
            changed = path.stat().st_mtime
        except OSError:  # not there, or just moved
            continue
        if changed > newest:
            newest, metrics = changed, path
    lines = list(_tail(metrics)) if metrics else []
    values = _summarise(lines) if lines else {}
    evaluated = _evaluation(folder / EVAL_FILE)
    if not values and not evaluated:
        return None
    age = max(0.0, now - newest) if newest else max(0.0, now - (folder / EVAL_FILE).stat().st_mtime)
    done = not values or (folder / RUN_FILE).exists()
    state = "done" if done else "silent" if age > SILENT_SECONDS else "running"
    return JobProgress(job, state, age=age, **{**values, **evaluated})


def _tail(path: Path) -> Iterator[dict[str, Any]]:
    """The last reports of a file that may be growing; what isn't whole yet is left out."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            texts = file.read().split(b"\n")
    except OSError:
        return
    for text in texts[-3:]:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        named = line.items() if isinstance(line, dict) else ()
        numbers = {name: value for name, value in named if isinstance(value, int | float)}
        if {"step", "wall_s"} <= numbers.keys():
            yield numbers


def _summarise(lines: list[dict[str, Any]]) -> dict[str, Any]:
    last, before = lines[-1], lines[-2] if len(lines) > 1 else {"step": 0, "wall_s": 0.0}
    elapsed = last.get("wall_s", 0.0) - before.get("wall_s", 0.0)
    simulated = last.get("rollout/control_steps")
    moved = last["step"] - before["step"] if simulated is None else simulated
    return {
        "step": last["step"],
        "rate": moved / elapsed if elapsed > 0 else None,
        "unit": "it/s" if simulated is None else "steps/s",
        "episode_return": last.get("rollout/episode_return"),
        "success": last.get("rollout/success_rate", last.get("select/success_rate")),
        "information": last.get("modes/information"),
    }


def _evaluation(path: Path) -> dict[str, Any]:
    """Success and modes of an evaluation; nothing where there is none or it is damaged, which others report."""
    try:
        block = next(iter(load_document(path, Evaluation).policies.values()))
    except (BMDError, StopIteration):
        return {}
    return {
        "success": block.success_rate.mean,
        "episode_return": block.episode_return.mean,
        "solved": (block.solved.mean, block.solved.total),
    }
