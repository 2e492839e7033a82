"""What garbage is fed to, one try at a time: a target draws something bad, runs a command, and says how it ended."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
import zarr
from safetensors.torch import load_file, save_file

from bmd_pipeline.config.schema import RunConfig

from ..faults.lab import ROOT, TASK, assign
from . import garbage
from .bench import CHAIN, FINETUNED, RESULTS, SETTINGS, Bench, with_settings
from .settings import draw_settings, list_settings

Target = Callable[[Bench, random.Random], str]

SHOW = ["config", "show", "--task", TASK, "--preset", "smoke"]
STORE = Path("data", f"{TASK}-smoke", "demos.zarr")
COMMANDS = {
    "discover": ("discover",),
    "evaluate pretrained": ("evaluate", "--method", "pretrained"),
    "finetune": ("finetune", "--method", "dppo-bmd"),
    "evaluate": ("evaluate", "--method", "dppo-bmd"),
    "summarise": ("summarise",),
    "compare": ("compare",),
    "verdict": ("verdict",),
    "report": ("report",),
    "pretrain": ("pretrain",),
}
POLICY, MODES = RESULTS / "policy", RESULTS / "modes" / "seed0"
DOCUMENTS = {
    POLICY / "policy.json": ("discover", "evaluate pretrained"),
    POLICY / "run.json": ("discover", "report"),
    MODES / "modes.json": ("finetune", "evaluate"),
    MODES / "run.json": ("finetune",),
    FINETUNED / "finetuned.json": ("evaluate",),
    FINETUNED / "run.json": ("evaluate", "report"),
    FINETUNED / "eval.json": ("summarise", "compare", "verdict", "report"),
    FINETUNED / "metrics.jsonl": ("report",),
    RESULTS / "eval.json": ("report",),
    RESULTS / "compare.json": ("report",),
    RESULTS / "verdict.json": ("report",),
    STORE.with_name("demos.manifest.json"): ("pretrain",),
}
WEIGHTS = {
    POLICY / "policy.safetensors": ("discover", "evaluate pretrained"),
    MODES / "modes.safetensors": ("finetune", "evaluate"),
    FINETUNED / "finetuned.safetensors": ("evaluate",),
}
TABLES = {
    FINETUNED / "episodes.parquet": ("summarise", "compare", "verdict"),
    FINETUNED / "trajectories.parquet": ("summarise",),
    RESULTS / "episodes.parquet": ("report",),
    RESULTS / "trajectories.parquet": ("report",),
}


def settings_file(bench: Bench, rng: random.Random) -> str:
    """A file of settings with a wrong value, or that is hardly YAML; as --config or in a place of config/."""
    project = bench.copy(finished=False)
    place = rng.choice(("mine.yaml", f"config/tasks/{TASK}.yaml", "config/config.yaml", "config/presets/smoke.yaml"))
    path = project / place
    text = path.read_text() if path.exists() else (ROOT / "config" / "tasks" / f"{TASK}.yaml").read_text()
    if rng.random() < 0.6:
        text = yaml.safe_dump(garbage.mutate(rng, yaml.safe_load(text)), allow_unicode=True)
        path.write_text(text)
    elif rng.random() < 0.5:
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = lines[at].split(":")[0] + ": " + rng.choice(garbage.YAML)
        path.write_text("\n".join(lines))
    else:
        path.write_bytes(garbage.scramble(rng, text.encode()))
    option = ["--config", place] if place == "mine.yaml" else []
    return show_or_refuse(bench, project, option)


def assignments(bench: Bench, rng: random.Random) -> str:
    """`--set` with names that are nearly right and values that are edges of something."""
    names = list(list_settings(RunConfig))
    texts = []
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(names)
        if rng.random() < 0.2:
            at = rng.randrange(len(name))
            name = name[:at] + rng.choice(("", "x", ".", "..", " ", "=", "-")) + name[at + 1 :]
        drawn = rng.choice(garbage.YAML) if rng.random() < 0.3 else json.dumps(garbage.value(rng))
        texts += ["--set", f"{name}={drawn}".replace("\x00", "")]
    return show_or_refuse(bench, bench.copy(finished=False), texts)


def show_or_refuse(bench: Bench, project: Path, options: list[str]) -> str:
    """Settings are shown, and then showing what was shown shows the same; or a stage refuses them as well."""
    ended = bench.refuse_or_finish(project, [*SHOW, *options])
    if ended.status == 0:
        (project / "again.yaml").write_text(ended.text)
        again = bench.refuse_or_finish(project, [*SHOW, "--config", "again.yaml"])
        assert again.text == ended.text, f"{options}: shown settings read as others"
        return "accepted"
    stage = bench.refuse_or_finish(project, ["collect", "--task", TASK, "--preset", "smoke", *options])
    assert stage.text == ended.text, f"{options}: {stage.text}"
    return "refused"


def small_settings(bench: Bench, rng: random.Random) -> str:
    """Settings that are allowed, most of them at an edge, through the whole chain."""
    project = bench.copy(finished=False)
    drawn = draw_settings(rng)
    for argv in CHAIN:
        ended = bench.refuse_or_finish(project, with_settings(argv, [*SETTINGS, *drawn]))
        if ended.status == 2:
            return "refused" if argv == CHAIN[0] else f"refused by {argv[0]}"
    return "finished"


def command_line(bench: Bench, rng: random.Random) -> str:
    """Words of the command line in any order, with values of any kind."""
    project = bench.copy(finished=rng.random() < 0.5)
    words = ["collect", "pretrain", "discover", "finetune", "evaluate", "curve", "summarise", "compare", "verdict"]
    words += ["grid", "report", "summary", "tasks", "check-task", "config", "show", "schema"]
    options = ["--task", "--method", "--seed", "--output", "--demos", "--policy", "--modes", "--finetuned", "--preset"]
    options += ["--config", "--set", "--threads", "--max-minutes", "--quiet", "--plain", "--hashes", "--version", "-h"]
    values = [TASK, "dsrl", "dppo-bmd", "pretrained", "smoke", "0", str(RESULTS), str(STORE), "config", "out/x", "../x"]
    argv = [rng.choice(words)]
    if rng.random() < 0.8:
        argv += ["--task", TASK, *assign(argv, SETTINGS), "--preset", "smoke"]
    for _ in range(rng.randrange(5)):
        argv.append(rng.choice((*options, *words[:3]) if rng.random() < 0.9 else ("-", "--", "-x", "--nope")))
        if rng.random() < 0.8:
            drawn = rng.choice(values) if rng.random() < 0.6 else str(garbage.scalar(rng)).replace("\x00", "")
            outside = drawn.startswith("/") or ".." in drawn  # --output would write there
            argv.append("../x" if outside else drawn)
    ended = bench.refuse_or_finish(project, argv, stops="--max-minutes" in argv)
    return {0: "done", 2: "refused", 75: "stopped"}[ended.status]


def store(bench: Bench, rng: random.Random) -> str:
    """A demonstration store whose arrays don't belong together, or whose files are damaged."""
    project = bench.copy(finished=True)
    path = project / STORE
    if rng.random() < 0.5:
        file = rng.choice(sorted(part for part in path.rglob("*") if part.is_file()))
        _spoil_file(rng, file)
    else:
        _spoil_arrays(rng, path)
    ended = bench.refuse_or_finish(project, with_settings(COMMANDS["pretrain"]))
    return "used" if ended.status == 0 else "refused"


def _spoil_file(rng: random.Random, file: Path) -> None:
    if file.name == "zarr.json" and rng.random() < 0.7:
        file.write_text(json.dumps(garbage.mutate(rng, json.loads(file.read_text()))))
    else:
        file.write_bytes(garbage.scramble(rng, file.read_bytes()))


def _spoil_arrays(rng: random.Random, path: Path) -> None:
    """Writes the store anew, as zarr v2 or v3, with arrays of other shapes, types or values."""
    group = zarr.open_group(path, mode="r")
    attributes = dict(group.attrs)
    arrays = {name: np.asarray(group[name]) for name in ("data/obs", "data/action", "meta/episode_ends")}  # type: ignore[arg-type]
    name = rng.choice(list(arrays))
    changes: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        lambda a: a[: len(a) // 2],
        lambda a: a[:0],
        lambda a: a[None],
        lambda a: a.reshape(-1),
        lambda a: a.astype(rng.choice(("float64", "float16", "int32", "uint8", "bool", "complex64", "int64"))),
        lambda a: a * rng.choice((-1, 0, 1000)),
        lambda a: np.where(np.arange(len(a)) == rng.randrange(len(a)), np.nan, a.T.astype(float)).T,
        lambda a: np.where(np.arange(len(a)) == rng.randrange(len(a)), np.inf, a.T.astype(float)).T,
        lambda a: np.concatenate([a, a]),
        lambda a: a[::-1].copy(),
        lambda a: a.astype(str),
        lambda a: np.array(3.0),
    )
    arrays[name] = rng.choice(changes)(arrays[name])
    if rng.random() < 0.2:
        del arrays[rng.choice(list(arrays))]
    if rng.random() < 0.3:
        attributes = garbage.mutate(rng, attributes) if rng.random() < 0.8 else {}
        attributes = attributes if isinstance(attributes, dict) else {}
    shutil.rmtree(path)
    made = zarr.open_group(path, mode="w", zarr_format=rng.choice((2, 3)))
    for key, array in arrays.items():
        made.create_array(key, data=array)
    try:
        made.attrs.update(attributes)
    except (ValueError, TypeError, RecursionError):
        return  # not even JSON


def document(bench: Bench, rng: random.Random) -> str:
    """A JSON document with wrong values, in a folder whose records agree with it."""
    project = bench.copy(finished=True)
    path = rng.choice(list(DOCUMENTS))
    text = (project / path).read_text()
    if rng.random() < 0.1:
        text = garbage.scramble(rng, text.encode()).decode(errors="replace")
    elif path.suffix == ".jsonl":
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(garbage.mutate(rng, json.loads(lines[at])))
        text = "\n".join(lines) + "\n"
    else:
        text = json.dumps(garbage.mutate(rng, json.loads(text)))
    (project / path).write_text(text)
    return _run_on(bench, project, path, rng.choice(DOCUMENTS[path]))


def weights(bench: Bench, rng: random.Random) -> str:
    """A safetensors file with tensors of other names, shapes, types or values, in a folder that agrees with it."""
    project = bench.copy(finished=True)
    path = rng.choice(list(WEIGHTS))
    file = project / path
    if rng.random() < 0.3:
        file.write_bytes(garbage.scramble(rng, file.read_bytes()))
    else:
        tensors = load_file(file)
        name = rng.choice(sorted(tensors))
        tensor = tensors.pop(name)
        changes: tuple[Callable[[torch.Tensor], dict[str, torch.Tensor]], ...] = (
            lambda t: {},
            lambda t: {f"{name}x": t},
            lambda t: {name: t, "extra": t.clone()},
            lambda t: {name: t[None]},
            lambda t: {name: t.reshape(-1)[:1]},
            lambda t: {name: torch.zeros(0)},
            lambda t: {name: t.to(rng.choice((torch.float16, torch.int64, torch.bool, torch.bfloat16)))},
            lambda t: {name: torch.full_like(t, float("nan"))},
            lambda t: {name: torch.full_like(t, float("inf"))},
            lambda t: {name: t * 1e30},
            lambda t: {name: torch.zeros_like(t)},
        )
        save_file(tensors | rng.choice(changes)(tensor), file)
    return _run_on(bench, project, path, rng.choice(WEIGHTS[path]))


def table(bench: Bench, rng: random.Random) -> str:
    """A parquet file with other columns, types or values."""
    project = bench.copy(finished=True)
    path = rng.choice(list(TABLES))
    file = project / path
    if rng.random() < 0.3:
        file.write_bytes(garbage.scramble(rng, file.read_bytes()))
    else:
        rows = pq.read_table(file)
        name = rng.choice(rows.column_names)
        at = rows.column_names.index(name)
        changes: tuple[Callable[[], pa.Table], ...] = (
            lambda: rows.drop_columns([name]),
            lambda: rows.rename_columns([f"{c}x" if c == name else c for c in rows.column_names]),
            lambda: rows.set_column(at, name, pa.nulls(len(rows))),
            lambda: rows.set_column(at, name, pa.array([str(garbage.scalar(rng)) for _ in range(len(rows))])),
            lambda: rows.set_column(at, name, pa.array(np.full(len(rows), rng.choice((0.0, -1.0, 1e30, np.nan))))),
            lambda: rows.slice(0, 0),
            lambda: rows.slice(1),
            lambda: pa.concat_tables([rows, rows]),
            lambda: rows.append_column("a/b", pa.array(np.zeros(len(rows)))),
            lambda: rows.replace_schema_metadata({b"paths": b"{}"}),
        )
        buffer = io.BytesIO()
        pq.write_table(rng.choice(changes)(), buffer)
        file.write_bytes(buffer.getvalue())
    return _run_on(bench, project, path, rng.choice(TABLES[path]))


def no_file(bench: Bench, rng: random.Random) -> str:
    """An artifact, or a part of the store, that is a pipe, an endless device, a folder, a huge hole, or no text."""
    project = bench.copy(finished=True)
    parts = [path.relative_to(project) for path in sorted((project / STORE).rglob("*")) if path.is_file()]
    readers = {**DOCUMENTS, **WEIGHTS, **TABLES, **dict.fromkeys(parts, ("pretrain",))}
    path = rng.choice(list(readers))
    file = project / path
    file.unlink()
    kinds: tuple[Callable[[], object], ...] = (
        lambda: os.mkfifo(file),
        lambda: file.symlink_to("/dev/zero"),
        file.mkdir,
        lambda: (file.touch(), os.truncate(file, 2**33)),
        lambda: file.write_bytes('{"step": 1}\n'.encode("utf-16")),
    )
    rng.choice(kinds)()
    ended = bench.refuse_or_finish(project, with_settings(COMMANDS[rng.choice(readers[path])]))
    return "used" if ended.status == 0 else "refused"


def _run_on(bench: Bench, project: Path, path: Path, command: str) -> str:
    _agree(project / path)
    ended = bench.refuse_or_finish(project, with_settings(COMMANDS[command]))
    return "used" if ended.status == 0 else "refused"


def _agree(path: Path) -> None:
    """Makes the records beside a file vouch for it, so that reading it is put to the test and not its hash."""
    with suppress(ValueError, AttributeError, TypeError):  # it may be JSON no longer
        if path.suffix == ".json":
            _set(path, "sha256", None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    evaluation = path.with_name("eval.json")
    if path.suffix == ".parquet" and evaluation.exists():
        _set(evaluation, "tables", json.loads(evaluation.read_text())["tables"] | {path.name: digest})
        _agree(evaluation)
    if path.name == "policy.safetensors":
        _set(path.with_name("policy.json"), "weights_sha256", digest)
        _agree(path.with_name("policy.json"))
    record = path.with_name("run.json")
    if record != path and record.exists():
        values = json.loads(record.read_text())
        if path.name in values.get("outputs", {}):
            values["outputs"][path.name] = digest
            record.write_text(json.dumps(values))


def _set(path: Path, name: str, value: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


TARGETS: dict[str, Target] = {
    "settings in YAML": settings_file,
    "settings by --set": assignments,
    "allowed settings at their edges": small_settings,
    "command lines": command_line,
    "demonstration stores": store,
    "JSON documents": document,
    "safetensors": weights,
    "parquet tables": table,
    "what is no file": no_file,
}
