"""Demonstrations and policies that exist already: checked, and brought to where the later stages look for them.

Their records say that they were imported. No stage makes them, so that nothing replaces them by itself.
"""

import functools
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.demos.exports import WRITERS
from bmd_pipeline.demos.formats import fit_to_task, parse_bounds, read_recording, require_known
from bmd_pipeline.demos.store import DemoWriter, require_replaceable
from bmd_pipeline.environments.base import TaskSpec
from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_path, read_json, staged_directory, write_bytes, write_json
from bmd_pipeline.io.layout import METRICS_FILE, POLICY_FILE, RUN_FILE, Layout
from bmd_pipeline.io.progress import FolderLock
from bmd_pipeline.io.provenance import (
    RunStart,
    describe_run,
    is_imported,
    read_manifest,
    require_disposable_demos,
    require_disposable_policy,
    write_run,
)
from bmd_pipeline.policies.checkpoint import SETTINGS_FILE, save_policy
from bmd_pipeline.policies.conversion import NO_BOUND
from bmd_pipeline.policies.diffusion import DiffusionPolicy
from bmd_pipeline.policies.dppo import read_dppo
from bmd_pipeline.policies.external import BasePolicy
from bmd_pipeline.policies.lerobot import is_lerobot, list_files, read_lerobot
from bmd_pipeline.stages.console import Reporter
from bmd_pipeline.stages.pretrain import load_task_demos
from bmd_pipeline.stages.runtime import load_task_policy
from bmd_pipeline.tasks import registry

POLICY_FILES: Final = (POLICY_FILE, SETTINGS_FILE)


@dataclass(frozen=True)
class _Reading:
    """How demonstrations are read: what the command was told."""

    obs: tuple[str, ...]
    bounds: str
    clip: bool
    keep_failures: bool


def import_demos(
    config: RunConfig,
    *,
    store: Path,
    output: Path,
    manifest: Path,
    reporter: Reporter,
    obs: tuple[str, ...] = (),
    bounds: str = "",
    clip: bool = False,
    keep_failures: bool = False,
) -> None:
    """Brings demonstrations to where `pretrain` and `discover` read them, with a manifest that says where from.

    A store of ours is copied as it is, if nothing is said about its reading. What is in another format, or shall be
    read in a certain way, is brought to the task's units and written as a store of ours. What was imported already, and
    has not changed, is left alone, so that nothing that depends on it is made again. If `store` is `output`, the
    manifest alone is written; it is written last.

    Args:
        config: the run's settings.
        store: the demonstrations, in any format of `bmd_pipeline.demos.formats`.
        output: the store to write.
        manifest: its record.
        reporter: says what was imported.
        obs: arrays that make an observation; none takes what is usual in the format.
        bounds: LOW:HIGH of the recorded actions, in place of what the file says.
        clip: whether actions beyond their bounds are moved to the nearest one.
        keep_failures: whether episodes that failed are demonstrations too.

    Raises:
        DataError: the demonstrations are missing, damaged, of another task or in other units, or not safe to read.
        ConfigError: bounds are no bounds, or the store is in its place and shall be read in a certain way.
        ArtifactError: what is at `output` would be lost, can't be written, or another job is writing it.
    """
    reading, in_place = _Reading(obs, bounds, clip, keep_failures), store.resolve() == output.resolve()
    if not in_place:
        require_known(store)  # before all that is below it is hashed
    start = RunStart(reporter.warn, store)
    is_plain = reading == _Reading((), "", False, False)
    if in_place and not is_plain:
        raise ConfigError(f"{store} is in its place, and is kept as it is: move it away to import it in another way")
    if in_place or (is_plain and _is_own_store(store)):
        _copy_store(config, store, output, manifest, start, reporter)
    else:
        _convert(config, store, output, manifest, start, reporter, reading)


def _is_own_store(store: Path) -> bool:
    """Whether a folder is a store as `DemoWriter` writes it, be it damaged."""
    if not (store / "zarr.json").is_file():
        return False
    with suppress(ArtifactError):
        attributes = read_json(store / "zarr.json", "store").get("attributes")
        return isinstance(attributes, dict) and "schema_version" in attributes
    return True


def _copy_store(
    config: RunConfig, store: Path, output: Path, manifest: Path, start: RunStart, reporter: Reporter
) -> None:
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


def _convert(
    config: RunConfig,
    source: Path,
    output: Path,
    manifest: Path,
    start: RunStart,
    reporter: Reporter,
    reading: _Reading,
) -> None:
    spec = registry.make_spec(config.task.name, config.task.env)
    bounds = parse_bounds(reading.bounds, spec.action_dim) if reading.bounds else None
    if _is_converted_already(manifest, output, start.hashes[source], reading):
        reporter.log(f"{output}: {source} was imported already")
        return
    recording = read_recording(source, reading.obs, spec.obs_dim)
    fitted = fit_to_task(recording, spec, bounds=bounds, clip=reading.clip, keep_failures=reading.keep_failures)
    require_replaceable(output)
    require_disposable_demos(output, manifest, config.task.name, "import-demos")
    with FolderLock(Layout.state(output.parent), required=config.execution.require_lock) as lock:
        low, high = spec.action_low, spec.action_high
        with DemoWriter(output, spec.obs_dim, spec.action_dim, {}, action_low=low, action_high=high) as writer:
            for episode in fitted.episodes:
                writer.append(episode)
            start.require_unchanged()
            manifest.unlink(missing_ok=True)  # it vouches for the store that is about to be replaced
        found = {
            "episodes": len(fitted.episodes),
            "steps": writer.num_rows,
            "format": recording.format,
            "obs": recording.obs_keys,
            "clipped_actions": fitted.clipped_share,
            "failed_episodes": fitted.num_failed,
            "reading": asdict(reading),
        }
        outputs = {output.name: hash_path(output)}
        record = _describe_import(config, "collect", {"store": source}, start, **found, outputs=outputs)
        write_json(manifest, record)
        lock.discard()
    reporter.log(
        f"{output}: {len(fitted.episodes)} demonstrations of {source} imported ({recording.format}, observations "
        f"{', '.join(recording.obs_keys)}), {writer.num_rows} steps"
    )
    if fitted.num_failed:
        reporter.warn(f"{source}: {fitted.num_failed} episodes failed and were left out; --keep-failures takes them")
    if fitted.clipped_share:
        reporter.log(f"{fitted.clipped_share:.3%} of the actions' values were beyond their bounds and are clipped")


def _is_converted_already(manifest: Path, output: Path, source_hash: str, reading: _Reading) -> bool:
    """Whether a manifest speaks of the store that is there, and of the same file, read in the same way."""
    if not is_imported(manifest) or not output.is_dir():
        return False
    record = read_manifest(manifest)
    same = record["inputs"].get("store", {}).get("sha256") == source_hash
    how = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(reading).items()}
    return same and record.get("reading") == how and record["outputs"].get(output.name) == hash_path(output)


def export_demos(config: RunConfig, *, demos: Path, format: str, output: Path, reporter: Reporter) -> None:
    """Writes demonstrations as other projects read them, with actions in the environment's units.

    Args:
        config: the run's settings.
        demos: a store of the task.
        format: a key of `WRITERS`.
        output: the folder to write; nothing may be there.
        reporter: says what was written.

    Raises:
        DataError: the store is missing, damaged, of another task or in other units.
        ArtifactError: something is at `output`, or it can't be written.
    """
    data = load_task_demos(config, demos)
    if output.exists():
        raise ArtifactError(f"{output} is there already: delete it, or name another --output")
    with staged_directory(output) as partial:
        WRITERS[format](data, partial, registry.make_spec(config.task.name, config.task.env))
    reporter.log(f"{output}: {data.num_episodes} demonstrations of {demos} written, {len(data.obs)} steps")


def import_policy(
    config: RunConfig,
    *,
    policy: Path,
    output: Path,
    reporter: Reporter,
    dppo_config: Path | None = None,
    normalisation: Path | None = None,
) -> None:
    """Brings a policy to where later stages look for it, with a record that says where from.

    A folder with the `policy.safetensors` and `policy.json` of `save_policy` is copied; if it is `output`, the record
    alone is written. A folder of LeRobot's and a checkpoint of DPPO's are converted. What was imported already, and has
    not changed, is left alone.

    Args:
        config: the run's settings.
        policy: the folder, or the checkpoint.
        output: the folder to write.
        reporter: says what was imported.
        dppo_config: DPPO's configuration of the checkpoint; None for a folder.
        normalisation: the bounds of DPPO's data, if they are known.

    Raises:
        ArtifactError: the policy is missing, damaged, of a kind that is not supported, or for another task or other
            sizes; what is at `output` would be lost; or another job is writing there.
        ConfigError: a checkpoint comes without its configuration, or a folder with one.
    """
    if policy.is_file() and dppo_config is None:
        raise ConfigError(f"{policy} says nothing of its network: name DPPO's YAML file of its training, --dppo-config")
    if not policy.is_file() and (dppo_config or normalisation):
        raise ConfigError(f"--dppo-config and --normalisation go with a checkpoint of DPPO; {policy} is no file")
    if dppo_config is not None:
        named = {"checkpoint": policy, "dppo_config": dppo_config, "normalisation": normalisation}
        inputs = {name: path for name, path in named.items() if path is not None}
        read = functools.partial(read_dppo, policy, dppo_config, normalisation)
        if normalisation is None:
            reporter.warn("without --normalisation observations are taken as they are, actions as shares of the bounds")
        _convert_policy(config, policy, inputs, read, output, reporter)
    elif is_lerobot(policy):

        def read_theirs(spec: TaskSpec) -> DiffusionPolicy:
            found = read_lerobot(policy, spec)
            if found.config.sampler == "ddim" and float(found.chunk_high.max()) < NO_BOUND:
                reporter.warn("samples are not LeRobot's where DDIM clips them: ours corrects the noise there too")
            return found

        inputs = {path.name: path for path in list_files(policy)}
        _convert_policy(config, policy, inputs, read_theirs, output, reporter)
    else:
        _copy_policy(config, policy, output, reporter)


def _copy_policy(config: RunConfig, policy: Path, output: Path, reporter: Reporter) -> None:
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

    def write() -> None:
        for name, content in contents.items():
            write_bytes(output / name, content)

    _place_policy(config, {} if in_place else files, output, start, reporter, write)
    reporter.log(f"{output}: the policy in {policy} imported, {_count_parameters(found):,} parameters")


def _convert_policy(
    config: RunConfig,
    source: Path,
    inputs: Mapping[str, Path],
    read: Callable[[TaskSpec], DiffusionPolicy],
    output: Path,
    reporter: Reporter,
) -> None:
    start = RunStart(reporter.warn, *inputs.values())
    found = read(registry.make_spec(config.task.name, config.task.env))
    if _is_made_already(output, {name: start.hashes[path] for name, path in inputs.items()}):
        reporter.log(f"{output}: {source} was imported already")
        return
    require_disposable_policy(output, config.task.name, "import-policy")
    _place_policy(config, inputs, output, start, reporter, lambda: save_policy(found, output, config.task.name))
    shape = found.config
    reporter.log(
        f"{output}: {source} imported, {_count_parameters(found):,} parameters; {shape.n_action_steps} of "
        f"{shape.horizon} actions executed, {len(found.timesteps)} denoising steps of {shape.sampler}"
    )


def _is_made_already(output: Path, hashes: Mapping[str, str]) -> bool:
    """Whether run.json speaks of the policy that is there, and of files of this content."""
    if not is_imported(output / RUN_FILE):
        return False
    record = read_json(output / RUN_FILE, "record")
    copies = {name: hash_path(output / name) for name in POLICY_FILES if (output / name).exists()}
    return record.get("outputs") == copies and hashes == {
        name: entry["sha256"] for name, entry in record["inputs"].items()
    }


def _place_policy(
    config: RunConfig,
    inputs: Mapping[str, Path],
    output: Path,
    start: RunStart,
    reporter: Reporter,
    write: Callable[[], None],
) -> None:
    """Writes a policy and its record into a folder; without inputs, which it would be made of, the record alone."""
    start.require_unchanged()
    with FolderLock(Layout.state(output), required=config.execution.require_lock) as lock:
        for name in (RUN_FILE, METRICS_FILE):  # of a policy that was there before
            (output / name).unlink(missing_ok=True)
        if inputs:
            write()
        record = _describe_import(config, "pretrain", inputs, start, warnings=reporter.warnings)
        write_run(output, record, outputs=POLICY_FILES)
        lock.discard()


def _count_parameters(policy: BasePolicy) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())


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
