"""What is somebody's, what was read, and what is not what it seems: one try at a time, and what must hold after it.

As in `trials`, every try returns in a word what happened; it fails if something was lost, or passed for another thing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import zarr

from .lab import BY_NAME, KILLED, RESULTS, TASK, Ended, Lab, Stage, describe
from .trials import STATE, wait_for_progress

DATA = Path("data", f"{TASK}-smoke")
READ = {
    "pretrain": (DATA,),
    "discover": (RESULTS / "policy",),
    "finetune": (RESULTS / "policy", RESULTS / "modes" / "seed0"),
    "evaluate": (RESULTS / "policy", RESULTS / "modes" / "seed0", RESULTS / "dppo-bmd" / "seed0"),
}
"""Folders of the stages before, which a stage reads."""
FOREIGN_CODECS = ("pickle", "numcodecs.pickle", "json2", "vlen-utf8", "no-such-codec")


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


def swap_an_input(lab: Lab, twin: Path, stage: Stage, rng: random.Random) -> str:
    """What a stage reads was put there from a run of another seed."""
    project = lab.copy(stage)
    folder = rng.choice(READ[stage.name])
    shutil.rmtree(project / folder)
    shutil.copytree(twin / folder, project / folder)
    require_refusal(lab.run(project, stage))
    return "refused"


def swap_while_it_is_read(lab: Lab, twin: Path) -> str:
    """Demonstrations are replaced while a policy is trained on them: its record names those that it has seen."""
    stage = BY_NAME["pretrain"]
    project = lab.copy(stage)
    known = json.loads((project / DATA / "demos.manifest.json").read_text())["outputs"]["demos.zarr"]
    child = lab.start(project, stage.argv)
    wait_for_progress(project, stage, child)
    in_time = (project / STATE[stage.name]).exists()
    shutil.rmtree(project / DATA / "demos.zarr")
    shutil.copytree(twin / DATA / "demos.zarr", project / DATA / "demos.zarr")
    status, text = lab.wait(), lab.log.read_text()
    assert status == 0, text
    (record,) = json.loads((project / stage.proof).read_text())["inputs"].values()
    assert record["sha256"] == known, "the record names demonstrations that were never read"
    if not in_time:
        return "came too late"
    assert record["changed"], record
    assert "changed while" in text, text
    assert (
        describe(project, stage)[str(RESULTS / "policy" / "policy.safetensors")]
        == (lab.reference[stage.name][str(RESULTS / "policy" / "policy.safetensors")])
    )
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


def change_units(lab: Lab, rng: random.Random) -> str:
    """Observations of the demonstrations come in other units than the task's: the line names a column."""
    stage = BY_NAME["pretrain"]
    project = lab.copy(stage)
    array = zarr.open_group(project / DATA / "demos.zarr", mode="r+")["data/obs"]
    assert isinstance(array, zarr.Array)
    array[:] = array[:] * 10.0 ** rng.choice((-6, -3, 3, 6))
    ended = lab.run(project, stage)
    assert ended.status == 0, ended.text
    assert "does not look like" in ended.text, ended.text
    return "named"


class Twin:
    """A second finished project of the same settings, with another root seed; made when it is first asked for."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._folder = lab.folder / "twin"

    def __call__(self) -> Path:
        """Its folder."""
        if not self._folder.exists():
            self._lab.run_all(self._folder, "--set", "seed=7")
        return self._folder


def list_tries(lab: Lab, rng: random.Random) -> list[tuple[str, str, Callable[[], str]]]:
    """One try of each kind for each stage that it fits: its name, its target, and the try."""
    twin = Twin(lab)
    tries: list[tuple[str, str, Callable[[], str]]] = []
    for stage in KILLED:
        tries.append(("somebody's file in the way", stage.name, lambda stage=stage: stand_in_the_way(lab, stage, rng)))
        tries.append(("a link in the way", stage.name, lambda stage=stage: link_an_output(lab, stage, rng)))
        if stage.name in READ:
            tries.append(
                ("input of another run", stage.name, lambda stage=stage: swap_an_input(lab, twin(), stage, rng))
            )
    tries.append(("input replaced while it is read", "pretrain", lambda: swap_while_it_is_read(lab, twin())))
    tries.append(("foreign codec", "pretrain", lambda: name_a_codec(lab, rng)))
    tries.append(("other units", "pretrain", lambda: change_units(lab, rng)))
    return tries
