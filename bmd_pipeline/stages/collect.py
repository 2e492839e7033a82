"""Stage `collect`: scripted experts fill the demonstration store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bmd_pipeline.compute import set_threads
from bmd_pipeline.config.hashing import stage_hash, stage_slice
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.collect import Attempt, Journal, NextAttempt, Quota, make_pool
from bmd_pipeline.demos.store import DemoWriter, require_replaceable
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_tree, remove_leftovers, write_json
from bmd_pipeline.io.layout import JOURNAL_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import describe_run, may_collect, package_versions
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.stages.checkpoints import make_identity, make_wait
from bmd_pipeline.stages.console import Reporter, Stop
from bmd_pipeline.tasks import registry

MAX_ATTEMPTS_FACTOR = 3.0
"""Attempts per wanted demonstration before a behaviour is given up: the expert is to be repaired."""

STAGE: Final = "collect"


def collect(
    config: RunConfig,
    *,
    output: Path,
    manifest: Path,
    num_workers: int,
    reporter: Reporter,
    stop: Stop | None = None,
) -> None:
    """Collects successful demonstrations, balanced over the expert's behaviours.

    The store depends on the config and its seed only, not on `num_workers`: every attempt has a seed of
    its own, and successes are taken in attempt order. Failures are dropped and counted. Every finished attempt is
    kept in a journal at once, so that a killed collection goes on where it was and ends in the same store.

    Args:
        config: the run.
        output: the zarr store to write.
        manifest: the JSON file that stands for the store, written last: its tree hash, counts and provenance.
        num_workers: processes that demonstrate at the same time.
        reporter: where progress goes.
        stop: who may ask to stop early.

    Raises:
        ConfigError: `num_workers` is below 1, or the settings name a store to use instead.
        TaskError: the task's simulator isn't installed.
        TrainingError: the expert can't show a behaviour often enough.
        SimulationError: a worker died.
        ArtifactError: another job is collecting into the same folder, it can't be written, or what is there was not
            collected or was edited since.
        Stopped: somebody asked; what was collected is kept.
    """
    if num_workers < 1:
        raise ConfigError(f"num_workers must be >= 1, got {num_workers}")
    if config.collect.store is not None:
        raise ConfigError(f"nothing to collect: collect.store names demonstrations, {config.collect.store}")
    started = time.time()
    set_threads(1)  # demonstrations are many small steps, for which threads only get in each other's way
    task = config.task
    registry.require_simulator(task.name)
    spec = registry.make_spec(task.name, task.env)
    attributes = {
        "task": task.name,
        "config_hash": stage_hash(config, STAGE),
        "seed": config.seed,
        "packages": package_versions(),
    }
    stop = stop or Stop()
    require_replaceable(output)
    if not may_collect(output, manifest, stage_hash(config, STAGE)):
        raise ArtifactError(f"{output} was edited after its collection: delete it to collect anew, without the edits")
    folder = Layout.state(output.parent)
    with make_pool(task, num_workers) as pool:
        settings = config.collect
        quota = Quota(pool.behaviours, settings.num_episodes, MAX_ATTEMPTS_FACTOR, settings.behaviours)
        identity = make_identity(config, STAGE)
        with FolderLock(folder, identity, make_wait(config, stop, reporter)) as lock:
            remove_leftovers(output.parent)
            journal = Journal(folder / JOURNAL_FILE, identity)
            writer = DemoWriter(
                output,
                spec.obs_dim,
                spec.action_dim,
                attributes,
                action_low=spec.action_low,
                action_high=spec.action_high,
            )
            with journal, writer, reporter.progress(f"collect {task.name}", settings.num_episodes) as bar:
                unfinished = _replay(journal, quota, writer, reporter)
                bar.advance(_total(quota, "accepted"))
                next_attempt = _seeded(quota, unfinished, pool.behaviours, config.seed)
                while not quota.done:
                    stop.check()
                    attempt, episode = pool.run(next_attempt)
                    journal.add(attempt, episode)
                    for demonstration in quota.finish(attempt, episode):
                        writer.append(demonstration)
                        bar.advance(dropped=_total(quota, "dropped"))
                writer.set_attributes(behaviours=quota.counts())
                manifest.unlink(missing_ok=True)  # it vouches for the store that is about to be replaced
            accepted, attempts = _total(quota, "accepted"), _total(quota, "attempts")
            reporter.log(
                f"{output}: {accepted} demonstrations, {writer.num_rows} steps; "
                f"{attempts - accepted} of {attempts} attempts failed and were dropped"
            )
            document = describe_run(
                stage=STAGE,
                task=task.name,
                config=stage_slice(config, STAGE),
                config_hash=stage_hash(config, STAGE),
                seed=config.seed,
                inputs={},
                started=started,
                extra={
                    "episodes": accepted,
                    "steps": writer.num_rows,
                    "behaviours": quota.counts(),
                    "outputs": {output.name: hash_tree(output)},
                },
            )
            write_json(manifest, document)
            journal.discard()
            lock.discard()


def _replay(journal: Journal, quota: Quota, writer: DemoWriter, reporter: Reporter) -> deque[Attempt]:
    """Takes in what an earlier job collected; returns the attempts that it had begun and not finished."""
    unfinished: deque[Attempt] = deque()
    known = len(journal.episodes)
    while journal.episodes and (attempt := quota.next_attempt()) is not None:
        episode = journal.episodes.pop(attempt, None)
        if episode is None:
            unfinished.append(attempt)
            continue
        for demonstration in quota.finish(attempt, episode):
            writer.append(demonstration)
    if known:
        reporter.log(f"going on from {known} attempts of an earlier run")
    return unfinished


def _seeded(quota: Quota, unfinished: deque[Attempt], behaviours: Sequence[str], root: int) -> NextAttempt:
    """Attempts with a seed that depends on nothing but the root seed, the behaviour and the attempt's number."""

    def next_attempt() -> tuple[Attempt, int] | None:
        attempt = unfinished.popleft() if unfinished else quota.next_attempt()
        if attempt is None:
            return None
        return attempt, derive_seed(root, STAGE, behaviours[attempt.behaviour], attempt.index)

    return next_attempt


def _total(quota: Quota, count: str) -> int:
    return sum(counts[count] for counts in quota.counts().values())
