"""How an output came to be: `run.json`, CPU time, and whether demonstrations are still what they were."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import (
    damage_error,
    hash_path,
    hash_tree,
    is_there,
    parse_json,
    read_file,
    read_json,
    write_json,
)
from bmd_pipeline.io.layout import (
    LOCK_FILE,
    MANIFEST_FILE,
    MARK,
    METRICS_FILE,
    POLICY_FILE,
    RUN_FILE,
    SUCCESS_PICTURES,
    TABLES,
    Layout,
)

if TYPE_CHECKING:  # Snakemake reads this module for every job: torch is imported where it is asked
    import torch

    from bmd_pipeline.config.hashing import Stage


def measure_cpu_seconds() -> float:
    """Seconds of CPU that this process and its children have used since it began.

    Children that have ended are counted by the system; those that still run, as a simulator's workers do when a stage
    writes its record, by Linux' /proc, and not at all elsewhere.
    """
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_read_cpu_seconds(child.pid) for child in multiprocessing.active_children())
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + running


def _read_cpu_seconds(pid: int | None) -> float:
    """User and system time of a running process in seconds; 0 if it has ended, or without /proc."""
    try:
        # The name before the last parenthesis may hold anything; utime and stime are the 14th and 15th field.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SCHEMA_VERSION = 1
_PACKAGES = (
    *("bmd-pipeline", "torch", "numpy", "scipy", "scikit-learn", "zarr", "pyarrow", "safetensors", "pydantic"),
    *("mani_skill", "sapien", "mujoco", "gymnasium-robotics"),
)


class RunStart:
    """What holds when a stage begins: the time, the code, and the content of what it is about to read.

    Make it before anything is read: an input that is replaced while the stage works was never read by it.

    A run.json stands for its outputs too, which may be replaced while the record stays.

    Args:
        warn: takes one line for people about what has changed by the end.
        paths: the files and folders; those that are missing are left to whoever reads them.
    """

    def __init__(self, warn: Callable[[str], None], *paths: Path) -> None:
        self.warn = warn
        self.time = time.time()
        self.git_commit, self.packages = git_commit(), package_versions()
        self.hashes = {path: _hash_if_there(path) for path in paths}
        self._read = {path: {path: self.hashes[path], **_hash_outputs(path)} for path in paths}

    def find_changed(self) -> dict[Path, list[Path]]:
        """What is no longer what it was, by the path that was given: itself, or outputs that it names."""
        changed = {
            path: [file for file in files if _has_changed(file, files[file])] for path, files in self._read.items()
        }
        return {path: files for path, files in changed.items() if files}

    def require_unchanged(self) -> None:
        """Raises `ArtifactError` if a file or folder has changed."""
        for path, *_ in self.find_changed().values():
            raise ArtifactError(f"{path} changed while it was read; give the same command again")


def _hash_if_there(path: Path) -> str:
    return hash_path(path) if path.exists() else ""


def _has_changed(path: Path, known: str) -> bool:
    try:
        return _hash_if_there(path) != known
    except (ArtifactError, OSError):  # a pipe has come in its place, or it goes while it is looked at
        return True


def _hash_outputs(path: Path) -> dict[Path, str]:
    """Hashes of the files that a run.json names, without the log, which decides nothing; none of another file, or of a
    damaged record, which is refused where it is read."""
    names: list[str] = []
    if path.name == RUN_FILE:
        with suppress(ArtifactError):
            names = [name for name in read_record(path)["outputs"] if name != METRICS_FILE]
    return {path.parent / name: _hash_if_there(path.parent / name) for name in names}


def describe_run(
    *,
    stage: str,
    task: str,
    config: Mapping[str, Any],
    config_hash: str,
    seed: int,
    inputs: Mapping[str, Path],
    start: RunStart,
    device: torch.device | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that is known about how a stage ran, except its outputs.

    `wall_s` and `cpu_seconds` are those of the job that finished it; the metrics.jsonl of a training stage counts both
    over all of its jobs. Code and inputs are those of the start; what has changed since is marked, and warned of.

    Args:
        config: the stage's slice of the resolved config.
        config_hash: hash of that slice.
        inputs: files and folders it read, by name, all of which `start` knows.
        start: what held when it began.
        device: where it computed; the CPU if not given.
        extra: what else the stage has to say.
    """
    import torch

    changed = start.find_changed()
    for path in itertools.chain(*changed.values()):
        start.warn(f"{path} changed while {stage} ran: its record names the content that {stage} began with")
    if git_commit() != start.git_commit:
        start.warn(f"the code changed while {stage} ran: its record names the commit that {stage} began with")
    where = f"cpu ({platform.machine()}, {os.cpu_count()} cores)"
    if device is not None and device.type == "cuda":
        where = f"{device} ({torch.cuda.get_device_name(device)})"
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "task": task,
        "seed": seed,
        "config_hash": config_hash,
        "config": dict(config),
        "inputs": {
            name: {"path": str(path), "sha256": start.hashes[path], **({"changed": True} if path in changed else {})}
            for name, path in inputs.items()
        },
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git_commit": start.git_commit,
        "packages": start.packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": where,
        "threads": torch.get_num_threads(),
        "wall_s": round(max(0.0, time.time() - start.time), 3),  # somebody may have set the clock back
        "cpu_seconds": round(measure_cpu_seconds(), 3),
        **(extra or {}),
    }


def write_run(directory: Path, run: dict[str, Any], *, outputs: Sequence[str] | None = None) -> None:
    """Writes `run.json` beside the finished outputs of a stage, with their hashes; call it last.

    Args:
        directory: the stage's folder.
        run: what `describe_run` returned.
        outputs: names of the stage's own files, if the folder holds others too.
    """
    others = (RUN_FILE, Layout.state(directory).name)
    names = sorted(path.name for path in directory.iterdir() if path.name not in others and path.name[0] != ".")
    hashes = {name: hash_path(directory / name) for name in names if outputs is None or name in outputs}
    write_json(directory / RUN_FILE, {**run, "outputs": hashes})


_FIELDS: dict[str, Any] = {
    "inputs": dict,
    "outputs": dict,
    "config": dict,
    "kept": dict | None,
    "command": str,
    "config_hash": str,
    "git_commit": str | None,
    "wall_s": int | float,
}
"""Types of what is read of a record."""


def read_record(path: Path, advice: str = "") -> dict[str, Any]:
    """Reads a `run.json` or a manifest; `inputs` and `outputs` are objects. Errors and advice as in `read_json`."""
    record = {"inputs": {}, "outputs": {}, **read_json(path, "record", advice)}
    for name, kind in _FIELDS.items():
        if name in record and not isinstance(record[name], kind):
            what = "object" if kind is dict else "value of its type"
            raise damage_error("record", path, f"{name} is no {what}", advice)
    for name, values in (*record["inputs"].items(), *record.get("config", {}).items()):
        if not isinstance(values, dict) and name != "seed":
            raise damage_error("record", path, f"{name} is no object", advice)
    return record


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Reads the record beside demonstrations; as `read_record`."""
    keep = "keep the store beside it with `bmd-pipeline import-demos STORE --task TASK`"
    return read_record(manifest, f"{keep}, or move both away")


def require_run(
    directory: Path,
    stage: str,
    task: str,
    *,
    method: str | None = None,
    seed: int | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """The record of a folder, which must be the finished output of a stage for a task, with its files unchanged.

    A method and a seed are those that it must be of, where given.

    Raises:
        ArtifactError: it is unfinished or damaged, or was made by another stage, or for another task, method or seed.
            The message names the `command` that makes it, guessed from stage, task and record if not given.
    """
    guess = f"bmd-pipeline {stage} --task {task}"
    if not (directory / RUN_FILE).is_file():
        raise ArtifactError(f"{directory / RUN_FILE} is missing: make it with `{command or guess}`")
    record = read_record(directory / RUN_FILE, f"make it again with `{command or guess}`")
    of = "".join(f" --{name} {record[name]}" for name in ("method", "seed") if name in record and stage != "pretrain")
    command = command or guess + of
    require_origin(directory, record, stage, task, method=method, seed=seed)
    for name, expected in record["outputs"].items():
        path = directory / name
        if name != METRICS_FILE and (not path.exists() or hash_path(path) != expected):  # metrics decide nothing
            raise ArtifactError(
                f"{path} is damaged or edited: not what {RUN_FILE} records; make it again with `{command}`"
            )
    return record


def require_origin(
    directory: Path, record: Mapping[str, Any], stage: str, task: str, *, method: str | None, seed: int | None
) -> None:
    """Checks of which stage and task, and of which method and seed where given, a folder's record is."""
    if record.get("task") != task:
        raise ArtifactError(f"{directory} was made for task {record.get('task')}, not for {task}")
    if record.get("stage") != stage:
        raise ArtifactError(f"{directory} was made by stage {record.get('stage')}, not by {stage}")
    for name, wanted in (("method", method), ("seed", seed)):
        if wanted not in (None, record.get(name)):
            raise ArtifactError(f"{directory} was made for {name} {record.get(name)}, not for {name} {wanted}")


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that results depend on."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def git_commit() -> str | None:
    """Commit of the source tree this package runs from, "-dirty" if edited; None for an installed package."""
    here = Path(__file__)
    # a hook or a rebase that starts a stage says in GIT_DIR which repository it is about
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here.parent), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    with suppress(OSError, subprocess.SubprocessError):
        # An environment inside somebody's repository is not that repository's code: tracked files only.
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return None


# Snakemake doesn't look into folders: it follows a store through the manifest. What someone edits inside the
# store afterwards must still reach training. And Snakemake removes a rule's outputs before the rule runs, so what
# someone else put in their place must be noticed before.


def find_edited_hash(store: Path, manifest: Path) -> str | None:
    """Tree hash of a store that is not what its manifest records; None if it is, or one is missing.

    Times of files decide nothing: a copy or a backup may bring back an older one.
    """
    if not is_there(manifest) or not store.is_dir():
        return None
    found = _hash_unchanged(store, _list_file_states(store))
    return None if found == read_manifest(manifest)["outputs"].get(store.name) else found


@functools.lru_cache(maxsize=16)
def _hash_unchanged(store: Path, stamp: tuple[tuple[object, ...], ...]) -> str:
    """Tree hash of a store, computed once a process while its files are the same: Snakemake asks for every job."""
    return hash_tree(store)


def _list_file_states(store: Path) -> tuple[tuple[object, ...], ...]:
    """What tells whether a store's files are the same: nobody can set the time of their last change of status back."""
    found = ((path, path.stat()) for path in sorted(store.rglob("*")) if path.is_file())
    return tuple(
        (path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, stat in found
    )


def is_imported(record: Path) -> bool:
    """Whether a manifest or run.json was written by an import command; False if it is missing or damaged."""
    try:
        return read_json(record, "record").get("imported") is True
    except ArtifactError:
        return False


def list_imported(policy: Path | None, manifest: Path | None) -> tuple[Stage, ...]:
    """The stages whose output was imported, so that their settings decide nothing.

    Args:
        policy: folder of the base policy; it need not be there. None where it is about to be made.
        manifest: of the demonstrations; likewise. None where the policy was made of others.
    """
    if policy is not None and is_imported(policy / RUN_FILE):
        return ("collect", "pretrain")
    return ("collect",) if manifest is not None and is_imported(manifest) else ()


_MARKS = (MARK.encode(), b"bmd_pipeline")
"""What our pictures and tables, and tables of paths hold."""
_SHARED = (*TABLES, *SUCCESS_PICTURES)
"""Tables and pictures whose names are the same whatever the document beside them is called."""
_LOCK_CONTENT = re.compile(rb"(\d+ ([0-9a-f]{64})?\n)?")
"""A process, and the hash of what it computes."""
_UNMARKED = ".safetensors"
"""Suffix of weights, which don't tell who wrote them."""


def require_own(paths: Iterable[Path], stage: str, task: str | None, **of: object) -> None:
    """Checks that nobody's files are lost where a stage writes: what is there must bear our mark.

    A document names stage and task, and method and seed where it has them, which must be those of `of`; logs, locks,
    pages, tables and pictures are told by their content. Weights, which have no mark, are ours beside the document that
    they belong to, or beside the lock of a killed job; a table must be the one that its document names, and without one
    no other document may have tables there.

    Raises:
        ArtifactError: something is there that the stage did not write for this task.
    """
    found = [path for path in paths if os.path.lexists(path)]
    read = {path: _read_own(path, stage, task, of) for path in found if path.suffix == ".json"}
    documents = {path: document for path, document in read.items() if document is not None}
    named = {
        path.with_name(name): sha256
        for path, document in documents.items()
        for field in ("outputs", "tables")
        if isinstance(document.get(field), dict)
        for name, sha256 in document[field].items()
    }
    locks = {Layout.state(path.parent) / LOCK_FILE for path in found}
    vouched = bool(documents) or any(_is_marked(lock, stage, task) for lock in locks)

    def is_own(path: Path) -> bool:
        if not path.is_file():
            return False
        if path.suffix == ".json":  # what was imported is as it came: the record beside it names it
            return path in documents or named.get(path) == hash_path(path)
        if path.suffix == _UNMARKED:
            return vouched
        if path.name in _SHARED and (
            named.get(path) not in (None, hash_path(path)) if vouched else _has_evaluation(path.parent)
        ):
            return False
        return _is_marked(path, stage, task)

    for path in found:
        if not is_own(path):
            options = {"task": task, **of}.items()
            command = " ".join(
                ["bmd-pipeline", stage, *(f"--{name} {value}" for name, value in options if value is not None)]
            )
            raise ArtifactError(
                f"{path} would be replaced, and `{command}` did not write it, or it is damaged or of an older release: "
                "move it away or delete it, or write to another place"
            )


def _read_own(path: Path, stage: str, task: str | None, of: Mapping[str, object]) -> dict[str, Any] | None:
    """A document that the stage wrote for a task, method and seed; None if it is another, or none."""
    document: dict[str, Any] = {}
    with suppress(ArtifactError, OSError):
        document = read_json(path, "document")
    if "schema_version" not in document or document.get("task") != task:
        return None
    told = {name: document.get(name) for name in ("stage", "method", "seed")}
    with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
        if told["stage"] is None:  # as in result documents of older releases
            told["stage"] = document["provenance"]["command"].split()[1]
        if stage == "evaluate":
            ((told["method"], block),) = document["policies"].items()
            told["seed"] = block["seeds"][0]["seed"]
    others = [name for name, wanted in of.items() if None not in (wanted, told[name]) and told[name] != wanted]
    return document if told["stage"] == stage and not others else None


def _has_evaluation(folder: Path) -> bool:
    """Whether there is a document in a folder that has tables beside it."""
    for path in folder.glob("*.json"):
        with suppress(ArtifactError, OSError):
            if isinstance(read_json(path, "document").get("tables"), dict):
                return True
    return False


def _is_marked(path: Path, stage: str, task: str | None) -> bool:
    """Whether a log, lock, page, table or picture tells that we wrote it; a page, also for what."""
    if not path.is_file():
        return False
    try:
        content = read_file(path)
    except (ArtifactError, OSError):  # too large to be ours, or unreadable
        return False
    if path.name == LOCK_FILE:
        return _LOCK_CONTENT.fullmatch(content) is not None
    if path.suffix == ".jsonl":
        with suppress(ValueError):
            line = parse_json(content.partition(b"\n")[0] or b'{"step": 0, "cpu_seconds": 0}')
            return isinstance(line, dict) and {"step", "cpu_seconds"} <= line.keys()
    if path.suffix == ".html":
        kind = re.escape(f"{stage} of {task}" if task else stage).encode()
        return re.search(rb'<meta name="generator" content="bmd-pipeline [^",]*, %b">' % kind, content) is not None
    return any(mark in content for mark in _MARKS)


def require_same_preset(paths: Iterable[Path], preset: str | None) -> None:
    """Checks that records among files that will be replaced were made with the present preset.

    Raises:
        ArtifactError: one was made with another.
    """
    for path in paths:
        made_with = read_json(path, "record").get("preset") if path.suffix == ".json" and path.is_file() else None
        if None not in (made_with, preset) and made_with != preset:
            raise ArtifactError(
                f"{path} was made with preset {made_with} and would be replaced with preset {preset}: give this run a "
                f"name (run=NAME) or preset {made_with}, or replace it with --force (in the workflow, force=true)"
            )


def read_cost(path: Path) -> float:
    """CPU time in seconds that an output says it took, over all jobs that made it; 0 for what says nothing."""
    if path.suffix != ".json" or not path.is_file():
        return 0.0
    cost = 0.0
    with suppress(ArtifactError, OSError, ValueError, LookupError, TypeError, AttributeError):
        document = read_json(path, "document")
        cost = float(document.get("provenance", document)["cpu_seconds"])
        if path.name == RUN_FILE:  # which knows the last job alone
            lines = read_file(path.with_name(METRICS_FILE)).splitlines()
            cost = max(cost, float(parse_json(lines[-1])["cpu_seconds"]))
    return cost


def require_demos(store: Path, manifest: Path, task: str, config_hash: str) -> None:
    """Checks demonstrations that `collect` will not make again.

    Raises:
        ArtifactError: they were imported and are missing, or edited since they were collected under settings of another
            `config_hash`.
    """
    if is_imported(manifest):
        if not store.is_dir():
            raise ArtifactError(
                f"{store} was imported and is missing: import it again with `bmd-pipeline import-demos STORE "
                f"{describe_place(store, task)}`, or delete {manifest} to collect"
            )
    elif find_edited_hash(store, manifest) is not None:
        reason = _explain_not_collected(store, manifest)
        if read_manifest(manifest).get("config_hash") != config_hash:
            reason = reason or "was edited after its collection under other settings"
        if reason:
            raise ArtifactError(f"{store} {reason}: {_advise_keeping(store, task)}")


def require_disposable_demos(store: Path, manifest: Path, task: str, command: str) -> None:
    """Checks that no demonstrations are lost where a command, `collect` or `import-demos`, writes a store.

    What was copied from elsewhere may be imported anew.

    Raises:
        ArtifactError: a store is there that was imported, that nobody collected, or that was edited since.
    """
    if is_there(manifest) and store.name not in (outputs := read_manifest(manifest)["outputs"]):
        raise ArtifactError(
            f"{manifest} stands for {', '.join(outputs) or 'another store'}, and `{command}` would replace it: write "
            f"{store.name} into another folder"
        )
    # Snakemake keeps a hidden time stamp in a folder that a rule makes.
    is_empty = store.is_dir() and all(path.name[0] == "." for path in store.iterdir())
    if not store.is_symlink() and (is_empty or not store.exists()):
        return
    is_edited = find_edited_hash(store, manifest) is not None
    if is_imported(manifest) and not is_edited:
        if command == "import-demos" and read_manifest(manifest)["inputs"]:
            return
        raise ArtifactError(
            f"{store} was imported, and `{command}` would replace it: delete it and {manifest.name} first, or move them"
        )
    if reason := _explain_not_collected(store, manifest) or ("was edited after its collection" if is_edited else None):
        raise ArtifactError(f"{store} {reason}, and `{command}` would replace it: {_advise_keeping(store, task)}")


def require_disposable_policy(folder: Path, task: str, command: str) -> None:
    """Checks that no policy is lost where a command, `pretrain` or `import-policy`, writes one.

    What was copied from elsewhere may be imported anew.

    Raises:
        ArtifactError: a policy is there that was imported, or that no run of `pretrain` wrote.
    """
    run = folder / RUN_FILE
    traces = (folder / METRICS_FILE, Layout.state(folder) / LOCK_FILE)  # of a run that was killed before its run.json
    if not (folder / POLICY_FILE).exists() or any(_is_marked(path, "pretrain", task) for path in traces):
        return
    if not is_imported(run):  # somebody else's policy may have a run.json too, from `write_run`
        raise ArtifactError(
            f"{folder} holds a policy that `pretrain` did not make, and `{command}` would replace it: keep it with "
            f"`bmd-pipeline import-policy {folder} {describe_place(folder, task)}`, or move it away"
        )
    if command != "import-policy" or not read_json(run, "record").get("inputs"):
        raise ArtifactError(f"{folder} was imported, and `{command}` would replace it: delete it first, or move it")


def require_own_demos(policy: Path, demos: Path) -> None:
    """Checks that an imported policy is taught its codes on demonstrations of its own, not on those of an expert.

    A store without a manifest beside it is one that the user named.

    Raises:
        ConfigError: the policy was imported, and the demonstrations were not.
    """
    manifest = demos.parent / MANIFEST_FILE
    named = demos.exists() and not is_there(manifest)
    if is_imported(policy / RUN_FILE) and not is_imported(manifest) and not named:
        raise ConfigError(
            "discover.form must be published for an imported policy without imported demonstrations: codes are taught "
            "on its own, which `bmd-pipeline import-demos STORE --task TASK` brings"
        )


def _advise_keeping(store: Path, task: str) -> str:
    return f"keep it with `bmd-pipeline import-demos {store} {describe_place(store, task)}`, or move it away"


def describe_place(output: Path, task: str) -> str:
    """Options with which an import writes there: the folder of a run with a name has to be told."""
    return f"--task {task}" + ("" if output.parent.name == task else f" --output {output}")


def _explain_not_collected(store: Path, manifest: Path) -> str | None:
    """Why a store may not be the output of `collect`, so that no command may replace it; None if it is, edited or
    not."""
    try:
        made_under = read_json(store / "zarr.json", "store")["attributes"]["config_hash"]
    except (ArtifactError, KeyError, TypeError):  # a file, another format, another writer
        return "was not made by `collect`"
    if is_there(manifest):
        same = read_manifest(manifest).get("config_hash") == made_under
        return None if same else f"is not the store of {manifest}"
    # A killed collection may have put its store in place and not have come to the manifest.
    return None if (Layout.state(store.parent) / LOCK_FILE).is_file() else f"has no {manifest.name} beside it"
