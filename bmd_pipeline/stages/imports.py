"""Demonstrations and policies that exist already: checked, and copied to where the later stages look for them.

Their records say that they were imported. No stage makes them, so that nothing replaces them by itself.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.store import require_replaceable
from bmd_pipeline.io.files import hash_path, read_json, staged_directory, write_bytes, write_json
from bmd_pipeline.io.layout import METRICS_FILE, POLICY_FILE, RUN_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import (
    RunStart,
    describe_run,
    is_imported,
    require_disposable_demos,
    require_disposable_policy,
    write_run,
)
from bmd_pipeline.policies.checkpoint import SETTINGS_FILE
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.pretrain import load_task_demos
from bmd_pipeline.stages.runtime import load_task_policy

POLICY_FILES: Final = (POLICY_FILE, SETTINGS_FILE)


def import_demos(config: RunConfig, *, store: Path, output: Path, manifest: Path, reporter: Reporter) -> None:
    """Copies demonstrations to where `pretrain` and `discover` read them, with a manifest that says where from.

    What was imported already, and has not changed, is left alone, so that nothing that depends on it is made again. If
    `store` is `output`, the manifest alone is written; it is written last.

    Raises:
        DataError: the store is missing, damaged, of another task or in other units.
        ArtifactError: what is at `output` would be lost, can't be written, or another job is writing it.
    """
    start = RunStart(reporter.warn, store)
    data = load_task_demos(config, store)
    outputs = {output.name: start.hashes[store]}
    in_place = store.resolve() == output.resolve()
    if _is_imported_already(manifest, {output.name: store}):
        reporter.log(f"{output}: {store} was imported already")
        return
    if not in_place:
        require_replaceable(output)
        require_disposable_demos(output, manifest, config.task.name, "import-demos")
    with FolderLock(Layout.state(output.parent), required=config.execution.require_lock) as lock:
        if not in_place:
            with staged_directory(output) as partial:
                shutil.copytree(store, partial, dirs_exist_ok=True, ignore=lambda *_: [".snakemake_timestamp"])
                start.require_unchanged()
                manifest.unlink(missing_ok=True)  # it vouches for the store that is about to be replaced
        inputs, counts = {} if in_place else {"store": store}, {"episodes": data.num_episodes, "steps": len(data.obs)}
        write_json(manifest, _describe_import(config, "collect", inputs, start, **counts, outputs=outputs))
        lock.discard()
    reporter.log(f"{output}: {data.num_episodes} demonstrations of {store} imported, {len(data.obs)} steps")


def import_policy(config: RunConfig, *, policy: Path, output: Path, reporter: Reporter) -> None:
    """Copies a policy to where later stages look for it, with a record that says where from.

    `policy` is a folder with the `policy.safetensors` and `policy.json` of `save_policy`; if it is `output`, the record
    alone is written. What was imported already, and has not changed, is left alone.

    Raises:
        ArtifactError: the policy is missing, damaged, or for another task or other sizes; what is at `output` would be
            lost; or another job is writing there.
    """
    files = {name: policy / name for name in POLICY_FILES}
    start = RunStart(reporter.warn, *files.values())
    found = load_task_policy(config, policy)
    in_place = policy.resolve() == output.resolve()
    if _is_imported_already(output / RUN_FILE, files):
        reporter.log(f"{output}: the policy in {policy} was imported already")
        return
    if not in_place:
        require_disposable_policy(output, config.task.name, "import-policy")
    contents = {name: path.read_bytes() for name, path in files.items()}
    start.require_unchanged()
    with FolderLock(Layout.state(output), required=config.execution.require_lock) as lock:
        for name in (RUN_FILE, METRICS_FILE):  # of a policy that was there before
            (output / name).unlink(missing_ok=True)
        if not in_place:
            for name, content in contents.items():
                write_bytes(output / name, content)
        inputs = {} if in_place else files
        record = _describe_import(config, "pretrain", inputs, start, warnings=reporter.warnings)
        write_run(output, record, outputs=POLICY_FILES)
        lock.discard()
    size = sum(parameter.numel() for parameter in found.parameters())
    reporter.log(f"{output}: the policy in {policy} imported, {size:,} parameters")


def _describe_import(
    config: RunConfig, stage: str, inputs: Mapping[str, Path], start: RunStart, **extra: Any
) -> dict[str, Any]:
    """The record of a stage whose output was imported, so that no settings decided it."""
    origin: dict[str, Any] = {"task": config.task.name, "config": {}, "config_hash": "", "seed": config.seed}
    return describe_run(stage=stage, **origin, inputs=inputs, start=start, extra={"imported": True, **extra})


def _is_imported_already(record: Path, files: Mapping[str, Path]) -> bool:
    """Whether a manifest or run.json speaks of these very files, by the names of their copies, and of the copies."""
    if not is_imported(record):
        return False
    recorded = read_json(record, "record").get("outputs")
    copies = {name: record.parent / name for name in files}
    return all(
        recorded == {name: hash_path(path) for name, path in places.items() if path.exists()}
        for places in (files, copies)
    )
