"""What is somebody's, what was read, and what is not what it seems: one try at a time, and what must hold after it.

As in `trials`, every try returns in a word what happened; it fails if something was lost, or passed for another thing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from bmd_pipeline.io.files import hash_path

from .lab import BY_NAME, KILLED, RESULTS, TASK, Ended, Lab, Stage, describe
from .trials import is_running

DATA = Path("data", f"{TASK}-smoke")
POLICY, MODES, FINETUNED = (RESULTS / name for name in ("policy", "modes/seed0", "dppo-bmd/seed0"))
READ = {
    "pretrain": (DATA,),
    "discover": (POLICY,),
    "finetune": (POLICY, MODES),
    "evaluate": (POLICY, MODES, FINETUNED),
}
"""Folders of the stages before, which a stage reads."""
OTHER_TASK = f"{TASK}Shifted"
"""Has the same sizes."""
SWAPS: dict[str, dict[str, tuple[Path, ...]]] = {
    "seed": READ,
    "task": READ,
    "base policy": {"finetune": (POLICY,), "evaluate": (POLICY,)},
    "method": {"evaluate": (FINETUNED,)},
}
"""Stages and folders for which another project, by what it differs, has something else."""
READ_FROM = (
    ("pretrain", "demos", DATA / "demos.zarr"),
    ("discover", "demos", DATA / "demos.zarr"),
    ("discover", "policy", POLICY),
    ("finetune", "policy", POLICY),
    ("finetune", "modes", MODES),
    ("evaluate", "policy", POLICY),
    ("evaluate", "modes", MODES),
    ("evaluate", "finetuned", FINETUNED),
)
"""Stages, inputs as their records call them, and where those are."""
Values = NDArray[np.float64]
FOREIGN_CODECS = ("pickle", "numcodecs.pickle", "json2", "numcodecs.msgpack2", "vlen-utf8", "no-such-codec")


def require_refusal(ended: Ended) -> None:
    """The command refused in one line."""
    assert ended.status == 2, f"status {ended.status}: {ended.text[-2000:]}"
    assert "Traceback" not in ended.text, ended.text
    assert ended.last_line.startswith("error: "), ended.text


def pick_place(lab: Lab, project: Path, stage: Stage, rng: random.Random) -> Path:
    """Somewhere that a stage writes, or beside it: nothing is there yet."""
    folder = (project / stage.proof).parent
    names = [project / name for name in lab.reference[stage.name]]
    beside = [folder / name for name in ("notes.txt", "checkpoints/epoch1.ckpt", "checkpoints/lock", ".mine.1.tmp")]
    path = rng.choice([*names, *beside])
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def stand_in_the_way(lab: Lab, stage: Stage, rng: random.Random) -> str:
    """Somebody's file is where a stage writes: it stays as it is, whatever the stage does."""
    project = lab.copy(stage)
    path, content = pick_place(lab, project, stage, rng), b"a thesis\n" + rng.randbytes(64)
    path.write_bytes(content)
    ended = lab.run(project, stage)
    assert path.is_file(), f"{stage.name} removed {path}"
    assert path.read_bytes() == content, f"{stage.name} replaced {path}"
    if ended.status == 0:
        return "left alone"
    require_refusal(ended)
    shown = next((parent for parent in path.parents if parent.suffix == ".zarr"), path)  # a store is named as one
    assert shown.name in ended.last_line or shown.parent.name in ended.last_line, f"{path}: {ended.last_line}"
    return "refused"


def link_an_output(lab: Lab, stage: Stage, rng: random.Random) -> str:
    """A link to somebody's file is where a stage writes: nothing is written through it."""
    project = lab.copy(stage)
    victim, content = project / "thesis.tex", b"a thesis\n" + rng.randbytes(64)
    victim.write_bytes(content)
    path = pick_place(lab, project, stage, rng)
    path.symlink_to(victim) if rng.random() < 0.5 else os.link(victim, path)
    ended = lab.run(project, stage)
    assert victim.read_bytes() == content, f"{stage.name} wrote through {path}"
    if ended.status == 0:
        return "left alone"
    require_refusal(ended)
    return "refused"


def swap_an_input(lab: Lab, other: Path, stage: Stage, folder: Path) -> str:
    """What a stage reads was put there from another project."""
    project = lab.copy(stage)
    shutil.rmtree(project / folder)
    shutil.copytree(other / folder, project / folder)
    require_refusal(lab.run(project, stage))
    return "refused"


def list_files(project: Path, folder: Path) -> list[Path]:
    """Files of a store, or a record and the files that it names, in the order of their names."""
    if folder.suffix == ".zarr":
        return sorted(path.relative_to(project) for path in (project / folder).rglob("*") if path.is_file())
    outputs = json.loads((project / folder / "run.json").read_text())["outputs"]
    return sorted(folder / name for name in ("run.json", *outputs) if name != "metrics.jsonl")


def swap_while_it_is_read(lab: Lab, twin: Path, stage: Stage, name: str, folder: Path, rng: random.Random) -> str:
    """An input, or one file of it, is replaced while a stage works on it: its record names what it has read."""
    project = lab.copy(stage)
    known = hash_path(project / folder if folder.suffix == ".zarr" else project / folder / "run.json")
    files = [path for path in list_files(project, folder) if (twin / path).exists()]
    files = [path for path in files if (twin / path).read_bytes() != (project / path).read_bytes()]
    chosen = rng.choice([files, *([path] for path in files)])
    lock = (project / stage.proof).parent / "checkpoints" / "lock"  # taken once all has been read
    child = lab.start(project, stage.argv)
    while not lock.exists() and is_running(child):
        time.sleep(0.001)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGSTOP)
    in_time = lock.exists()
    for path in chosen:
        shutil.copyfile(twin / path, project / path)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGCONT)
    status, text = lab.wait(), lab.log.read_text()
    assert status == 0, text
    document = json.loads((project / stage.proof).read_text())
    record = document.get("provenance", document)["inputs"][name]
    assert record["sha256"] == known, f"the record names another {name} than was read"
    if not in_time:
        return "came too late"
    assert record.get("changed"), f"{stage.name}: {chosen} replaced, and not marked: {record}"
    assert "changed while" in text, text
    found = describe(project, stage)
    for path, expected in lab.reference[stage.name].items():
        if path.endswith((".safetensors", ".parquet")):
            assert found[path] == expected, f"{path} was made from what came later"
    return "marked"


def name_a_codec(lab: Lab, rng: random.Random) -> str:
    """An array of the demonstrations asks for a codec that may run code: it is not decoded."""
    stage = BY_NAME["pretrain"]
    project = lab.copy(stage)
    metadata = (
        project / DATA / "demos.zarr" / rng.choice(("data/obs", "data/action", "meta/episode_ends")) / "zarr.json"
    )
    document = json.loads(metadata.read_text())
    codecs = document["codecs"]
    codecs.insert(rng.randrange(len(codecs) + 1), {"name": rng.choice(FOREIGN_CODECS), "configuration": {}})
    metadata.write_text(json.dumps(document))
    require_refusal(lab.run(project, stage))
    return "refused"


def scale_observations(obs: Values, action: Values, rng: random.Random) -> None:
    """By a power of ten."""
    obs *= 10.0 ** rng.choice([power for power in range(-7, 8) if power])


def shift_a_column(obs: Values, action: Values, rng: random.Random) -> None:
    """By as much as it is wide, or more."""
    column = rng.randrange(obs.shape[1])
    obs[:, column] += rng.choice((-1, 1)) * 10.0 ** rng.uniform(0.0, 4.0) * float(np.ptp(obs[:, column]))


def exchange_columns(obs: Values, action: Values, rng: random.Random) -> None:
    """One of the observation with one of the action: this task's x and y are alike."""
    first, second = rng.randrange(obs.shape[1]), rng.randrange(action.shape[1])
    obs[:, first], action[:, second] = action[:, second].copy(), obs[:, first].copy()


def freeze_a_column(obs: Values, action: Values, rng: random.Random) -> None:
    """As a sensor that hangs, or is missing, shows it."""
    column = rng.randrange(obs.shape[1])
    obs[:, column] = rng.choice((0.0, obs[0, column], obs[:, column].mean(), obs[:, column].max()))


def scale_actions(obs: Values, action: Values, rng: random.Random) -> None:
    """By a power of ten: those beyond the bounds are clipped, small ones lead nowhere."""
    action *= 10.0 ** rng.choice((-4, -3, -2, -1, 1, 2, 3, 4))


MISFITS: dict[str, Callable[[Values, Values, random.Random], None]] = {
    "observations in other units": scale_observations,
    "a column with an offset": shift_a_column,
    "columns exchanged": exchange_columns,
    "a constant column": freeze_a_column,
    "actions in other units": scale_actions,
}


def misfit(lab: Lab, kind: str, rng: random.Random) -> str:
    """Demonstrations are in other units than the task's, or of other columns: a line says so before training."""
    stage = BY_NAME["pretrain"]
    project = lab.copy(stage)
    store = zarr.open_group(project / DATA / "demos.zarr", mode="r+")
    obs, action = (np.asarray(store[name], dtype=np.float64) for name in ("data/obs", "data/action"))
    MISFITS[kind](obs, action, rng)
    store["data/obs"][:], store["data/action"][:] = obs, action  # type: ignore[index]
    ended = lab.run(project, stage)
    assert ended.status == 0, f"{kind}: {ended.text}"
    assert "does not look like" in ended.text or "lie outside their bounds" in ended.text, f"{kind}: {ended.text}"
    return "named"


class Others:
    """Finished projects that differ in one thing, with their folders where the laboratory has its own.

    Each is made when it is first asked for.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __call__(self, by: str) -> Path:
        """The folder of the one that is another `by` seed, base policy, method or task."""
        folder = self._lab.folder / f"other {by}"
        if not folder.exists():
            getattr(self, f"_make_another_{by.replace(' ', '_')}")(folder)
        return folder

    def _make_another_seed(self, folder: Path) -> None:
        self._lab.run_all(folder, "--set", "seed=7")

    def _make_another_task(self, folder: Path) -> None:
        self._lab.run_all(folder, "--task", OTHER_TASK, stages=KILLED)
        for root in ("data", "results"):
            (folder / root / f"{OTHER_TASK}-smoke").rename(folder / root / f"{TASK}-smoke")

    def _make_another_base_policy(self, folder: Path) -> None:
        """Of the same settings, from other demonstrations."""
        self._lab.copy(BY_NAME["pretrain"], folder)
        zarr.open_group(folder / DATA / "demos.zarr", mode="r+")["data/action"][0, 0] = 0.25  # type: ignore[index]
        self._run(folder, BY_NAME["pretrain"])

    def _make_another_method(self, folder: Path) -> None:
        stage = BY_NAME["finetune"]
        self._lab.copy(stage, folder)
        self._run(folder, replace(stage, argv=("finetune", "--method", "dppo")))
        shutil.rmtree(folder / FINETUNED, ignore_errors=True)
        (folder / RESULTS / "dppo").rename(folder / RESULTS / "dppo-bmd")

    def _run(self, folder: Path, stage: Stage) -> None:
        ended = self._lab.run(folder, stage)
        assert ended.status == 0, ended.text


def list_tries(lab: Lab, rng: random.Random) -> list[tuple[str, str, Callable[[], str]]]:
    """One try of each kind for each stage that it fits: its name, its target, and the try."""
    others = Others(lab)
    tries: list[tuple[str, str, Callable[[], str]]] = []
    for stage in KILLED:
        tries.append(("somebody's file in the way", stage.name, lambda stage=stage: stand_in_the_way(lab, stage, rng)))
        tries.append(("a link in the way", stage.name, lambda stage=stage: link_an_output(lab, stage, rng)))
    for by, swapped in SWAPS.items():
        for name, folders in swapped.items():
            stage = BY_NAME[name]
            tries.append(
                (
                    f"input of another {by}",
                    name,
                    lambda by=by, stage=stage, folders=folders: swap_an_input(
                        lab, others(by), stage, rng.choice(folders)
                    ),
                )
            )
    for stage_name, name, folder in READ_FROM:
        tries.append(
            (
                "input replaced while it is read",
                f"{name} of {stage_name}",
                lambda stage=BY_NAME[stage_name], name=name, folder=folder: swap_while_it_is_read(
                    lab, others("seed"), stage, name, folder, rng
                ),
            )
        )
    tries.append(("foreign codec", "pretrain", lambda: name_a_codec(lab, rng)))
    tries += [(kind, "pretrain", lambda kind=kind: misfit(lab, kind, rng)) for kind in MISFITS]
    return tries
