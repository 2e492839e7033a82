"""Stage `collect`: scripted experts fill the demonstration store."""

from pathlib import Path
from typing import Final

from bmd_pipeline.compute import set_threads
from bmd_pipeline.config.hashing import stage_hash
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.collect import Attempt, Quota, make_pool
from bmd_pipeline.demos.store import DemoWriter, require_replaceable
from bmd_pipeline.io.files import hash_tree, write_json
from bmd_pipeline.io.provenance import RunStart, require_disposable_demos
from bmd_pipeline.seeds import derive_seed
from bmd_pipeline.stages.checkpoints import describe_stage, lock_folder
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.tasks import registry

MAX_ATTEMPTS_FACTOR = 3.0
"""Attempts per wanted demonstration before a behaviour is given up: the expert is to be repaired."""

STAGE: Final = "collect"


def collect(config: RunConfig, *, output: Path, manifest: Path, num_workers: int, reporter: Reporter) -> None:
    """Collects successful demonstrations, balanced over the expert's behaviours.

    The store depends on the config and its seed only, not on `num_workers`: every attempt has a seed of
    its own, and successes are taken in attempt order. Failures are dropped and counted. A killed collection starts
    over; what was there before stays until the new store is whole.

    `output` is the zarr store to write, and `manifest` the JSON file that stands for it, written last: its tree hash,
    counts and provenance. As many as `num_workers` processes demonstrate at the same time.

    Raises:
        ConfigError: there are too few episodes for the behaviours, or the expert has no such behaviour.
        TaskError: the task's simulator isn't installed.
        DataError: what is at `output` is no store.
        TrainingError: the expert can't show a behaviour often enough.
        SimulationError: a worker died.
        ArtifactError: another job is collecting into the same folder, it can't be written, or what is there was
            imported, was not collected or was edited since.
        AlreadyWritten: a job that computes the same was collecting, and has finished meanwhile.
    """
    start = RunStart(reporter.warn)
    set_threads(1)  # demonstrations are many small steps, for which threads only get in each other's way
    task = config.task
    registry.require_simulator(task.name)
    spec = registry.make_spec(task.name, task.env)
    attributes = {
        "task": task.name,
        "config_hash": stage_hash(config, STAGE),
        "seed": config.seed,
        "packages": start.packages,
    }
    require_replaceable(output)
    require_disposable_demos(output, manifest, task.name, STAGE)
    with make_pool(task, num_workers) as pool:
        settings = config.collect
        quota = Quota(pool.behaviours, settings.num_episodes, MAX_ATTEMPTS_FACTOR, settings.behaviours)

        def next_attempt() -> tuple[Attempt, int] | None:
            attempt = quota.next_attempt()
            if attempt is None:
                return None
            return attempt, derive_seed(config.seed, STAGE, pool.behaviours[attempt.behaviour], attempt.index)

        with lock_folder(config, STAGE, output.parent, reporter) as lock:
            low, high = spec.action_low, spec.action_high
            writer = DemoWriter(output, spec.obs_dim, spec.action_dim, attributes, action_low=low, action_high=high)
            with writer, reporter.progress(f"collect {task.name}", settings.num_episodes) as bar:
                while not quota.done:
                    attempt, episode = pool.run(next_attempt)
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
            document = describe_stage(
                config,
                STAGE,
                inputs={},
                start=start,
                episodes=accepted,
                steps=writer.num_rows,
                behaviours=quota.counts(),
                outputs={output.name: hash_tree(output)},
            )
            write_json(manifest, document)
            lock.discard()


def _total(quota: Quota, count: str) -> int:
    return sum(counts[count] for counts in quota.counts().values())
