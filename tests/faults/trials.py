"""One fault at a time, and what must hold after it.

Every trial breaks something, runs the same command again, and returns in a word what happened. It fails if the second
run neither finishes with the files of an undisturbed run nor refuses in one line that names what is broken.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .lab import BY_NAME, EVALUATED, RESULTS, RESUMABLE, TASK, Ended, Lab, Stage, describe, leftovers, remove

STOPPED = 75
STATE = {
    "pretrain": RESULTS / "policy" / "checkpoints" / "state.safetensors",
    "discover": RESULTS / "modes" / "seed0" / "checkpoints" / "state.safetensors",
    "finetune": RESULTS / "dppo-bmd" / "seed0" / "checkpoints" / "state.safetensors",
}
INPUTS = {
    "pretrain": (
        Path("data", f"{TASK}-smoke", "demos.zarr", "zarr.json"),
        Path("data", f"{TASK}-smoke", "demos.zarr", "data", "obs", "zarr.json"),
        Path("data", f"{TASK}-smoke", "demos.zarr", "data", "action", "c", "0", "0"),
        Path("data", f"{TASK}-smoke", "demos.zarr", "meta", "episode_ends", "c", "0"),
        Path("data", f"{TASK}-smoke", "demos.manifest.json"),
    ),
    "discover": tuple(RESULTS / "policy" / name for name in ("policy.safetensors", "policy.json", "run.json")),
    "finetune": tuple(RESULTS / "modes" / "seed0" / name for name in ("modes.safetensors", "modes.json", "run.json")),
    "evaluate": tuple(
        RESULTS / "dppo-bmd" / "seed0" / name for name in ("finetuned.safetensors", "finetuned.json", "run.json")
    ),
    "summarise": tuple(RESULTS / "dppo-bmd" / "seed0" / name for name in EVALUATED[:3]),
}


def require_finished(lab: Lab, project: Path, stage: Stage, ended: Ended) -> None:
    """The stage is done, its files are those of an undisturbed run, and nothing else is left."""
    assert ended.status == 0, f"{stage.name}: status {ended.status}: {ended.text[-2000:]}"
    found, expected = describe(project, stage), lab.reference[stage.name]
    different = [name for name in found | expected if found.get(name) != expected.get(name)]
    assert not different, f"{stage.name}: {different} differ from an undisturbed run"
    assert not leftovers(project), f"{stage.name} left {leftovers(project)}"


def require_refused(ended: Ended, path: Path) -> None:
    """The stage said in one line what is broken."""
    assert ended.status == 2, f"status {ended.status}: {ended.text[-2000:]}"
    assert "Traceback" not in ended.text, ended.text
    assert ended.last_line.startswith("error: "), ended.text
    shown = next((parent for parent in path.parents if parent.suffix == ".zarr"), path)  # a store is named as one
    assert str(shown) in ended.last_line or str(path.parent) in ended.last_line, f"{path} is not in: {ended.last_line}"


def require_whole_if_claimed(lab: Lab, project: Path, stage: Stage) -> None:
    """Where the file that says "complete" is, everything is."""
    if (project / stage.proof).exists():
        found, expected = describe(project, stage), lab.reference[stage.name]
        assert {name: found[name] for name in expected} == expected, f"{stage.name}: half-written and taken for whole"


def tell_how(ended: Ended) -> str:
    """Whether a run began anew."""
    return "went on" if "going on" in ended.text or "resuming" in ended.text else "started over"


# interruptions -----------------------------------------------------------------------------------------


def kill(lab: Lab, stage: Stage, rng: random.Random) -> str:
    """SIGKILL of the whole process group at a random moment: of the run, or of what comes after its first save."""
    project = lab.copy(stage)
    child = lab.start(project, stage.argv)
    if stage in RESUMABLE and rng.random() < 0.7:
        wait_for_progress(project, stage, child)
    time.sleep(rng.uniform(0.0, 0.7 * lab.seconds[stage.name]))
    with suppress(ProcessLookupError):  # it may have ended
        os.killpg(child, signal.SIGKILL)
    lab.wait()
    require_whole_if_claimed(lab, project, stage)
    again = lab.run(project, stage)
    require_finished(lab, project, stage, again)
    return tell_how(again)


def kill_often(lab: Lab, stage: Stage, rng: random.Random, times: int) -> str:
    """SIGKILL again and again, so that later jobs go on from what earlier ones saved."""
    project = lab.copy(stage)
    for _ in range(times):
        lab.run(project, stage, after=rng.uniform(0.3, 1.0) * lab.seconds[stage.name])
        require_whole_if_claimed(lab, project, stage)
    again = lab.run(project, stage)
    require_finished(lab, project, stage, again)
    return tell_how(again)


def ask(lab: Lab, stage: Stage, rng: random.Random, by: signal.Signals) -> str:
    """SIGTERM or SIGINT at a random moment: a stage that can go on saves, another one ends."""
    project = lab.copy(stage)
    stopped = lab.run(project, stage, after=rng.uniform(0.05, 0.9) * lab.seconds[stage.name], by=by)
    # Before Python has set its handlers the signal ends any process.
    saved = (STOPPED,) if stage in RESUMABLE else ()
    assert stopped.status in (0, *saved, -by, 128 + by), f"status {stopped.status}: {stopped.text[-2000:]}"
    if stopped.status == STOPPED:
        assert stopped.last_line == f"stopped by {by.name}; run the same command again to go on"
    require_whole_if_claimed(lab, project, stage)
    again = lab.run(project, stage)
    require_finished(lab, project, stage, again)
    return {0: "had finished", STOPPED: f"stopped, {tell_how(again)}"}.get(stopped.status, "ended at once")


def run_in_slices(lab: Lab, stage: Stage) -> str:
    """--max-minutes, again and again."""
    project = lab.copy(stage)
    share = 0.4 * lab.seconds[stage.name] / 60.0
    for runs in range(1, 20):
        # longer each time, since a busy machine may start a stage slower than it ran undisturbed
        ended = lab.run(project, stage, "--max-minutes", f"{share * 1.25**runs:.4f}")
        if ended.status != STOPPED:
            break
        assert "stopped by its time limit" in ended.last_line
    require_finished(lab, project, stage, ended)
    return "finished in slices"


def wait_for_progress(project: Path, stage: Stage, child: int) -> None:
    """Waits until a running stage has saved something, or has ended."""
    state = project / STATE[stage.name]
    while True:
        with suppress(OSError):  # it comes and goes
            if state.stat().st_size > 1000:
                return
        if not is_running(child):
            return
        time.sleep(0.001)


def is_running(child: int) -> bool:
    """Whether a process has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(lab: Lab, text: str, seconds: float = 60.0) -> None:
    """Waits until the running command has printed something."""
    deadline = time.monotonic() + seconds
    while text not in lab.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)


def stop_early(lab: Lab, stage: Stage) -> Path:
    """A project in which a stage has saved progress and stopped."""
    for _ in range(5):
        project = lab.copy(stage)
        child = lab.start(project, stage.argv)
        wait_for_progress(project, stage, child)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        if lab.wait() == STOPPED and (project / STATE[stage.name]).exists():
            return project
    raise AssertionError(f"{stage.name} can't be stopped halfway: {lab.log.read_text()}")


# damage ------------------------------------------------------------------------------------------------


def truncate(path: Path, rng: random.Random) -> None:
    """Leaves a random part, at least a byte short."""
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip(path: Path, rng: random.Random) -> None:
    """Flips one random bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def replace(path: Path, rng: random.Random) -> None:
    """Puts something else of the same length there."""
    path.write_bytes(rng.randbytes(path.stat().st_size))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "truncated": truncate,
    "bit-flipped": flip,
    "foreign": replace,
}


def damage_progress(lab: Lab, stage: Stage, rng: random.Random, kind: str) -> str:
    """A damaged checkpoint is refused."""
    project = stop_early(lab, stage)
    DAMAGES[kind](project / STATE[stage.name], rng)
    require_refused(lab.run(project, stage), STATE[stage.name])
    shutil.rmtree((project / STATE[stage.name]).parent)
    require_finished(lab, project, stage, lab.run(project, stage))
    return "refused"


def damage_input(lab: Lab, stage: Stage, rng: random.Random, path: Path, kind: str) -> str:
    """Damaged inputs are refused, or reported where editing them is allowed, or the damage decides nothing."""
    project = lab.copy(stage)
    DAMAGES[kind](project / path, rng)
    ended = lab.run(project, stage)
    if ended.status == 0 and "warning: data" in ended.text:
        return "warned"
    if ended.status == 0:
        require_finished(lab, project, stage, ended)
        return "decides nothing"
    require_refused(ended, path)
    return "refused"


# the machine -------------------------------------------------------------------------------------------


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


@contextmanager
def small_disk(lab: Lab) -> Iterator[Path]:
    """A file system of its own, of 32 MB."""
    disk = lab.folder / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a failed trial may leave a stage behind


def fill_disk(lab: Lab, stage: Stage, rng: random.Random) -> str:
    """The disk is full before the stage begins, or fills up in the middle; then somebody makes room."""
    with small_disk(lab) as disk:
        project, filler = lab.copy(stage, disk / "project"), disk / "filler"
        early, free = rng.random() < 0.3, int(4096 * 2 ** rng.uniform(0.0, 7.0))
        if not early:
            child = lab.start(project, stage.argv)
            if stage in RESUMABLE:
                wait_for_progress(project, stage, child)
            else:
                time.sleep(rng.uniform(0.0, 0.7 * lab.seconds[stage.name]))
        with suppress(OSError):  # the stage may take the last of the room meanwhile, and full is full
            filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free)))
        if early:
            lab.start(project, stage.argv)
        status, text = lab.wait(), lab.log.read_text()
        if status != 0:
            assert status == 2, f"status {status}: {text[-2000:]}"
            assert "can't be written" in text.rstrip().rpartition("\n")[2], text[-2000:]
            assert "Traceback" not in text, text[-2000:]
        require_whole_if_claimed(lab, project, stage)
        filler.unlink()
        require_finished(lab, project, stage, lab.run(project, stage))
    return "had room enough" if status == 0 else "refused, then finished"


def forbid_writing(lab: Lab, stage: Stage) -> str:
    """The file system is read-only; then it isn't."""
    with small_disk(lab) as disk:
        project = lab.copy(stage, disk / "project")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = lab.run(project, stage)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert ended.status == 2, f"status {ended.status}: {ended.text[-2000:]}"
        assert "Read-only file system" in ended.last_line
        require_finished(lab, project, stage, lab.run(project, stage))
    return "refused, then finished"


def block_folder(lab: Lab, stage: Stage) -> str:
    """A file stands where the stage wants a folder."""
    project = lab.copy(stage)
    folder = (project / stage.proof).parent
    shutil.rmtree(folder, ignore_errors=True)
    if stage.name in ("finetune", "evaluate"):  # the folder holds inputs or outputs of another stage
        shutil.copytree(lab.whole / stage.proof.parent, folder)
        remove(project, stage)
        folder = folder / "checkpoints"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")
    require_refused(lab.run(project, stage), folder.relative_to(project))
    folder.unlink()
    if stage.name == "finetune":
        shutil.rmtree(folder.parent)
    require_finished(lab, project, stage, lab.run(project, stage))
    return "refused, then finished"


def turn_clock_back(lab: Lab, stage: Stage, rng: random.Random) -> str:
    """The wall clock jumps back by minutes each time it is read, in a killed run and in the one that goes on."""
    project = lab.copy(stage)
    jump = rng.uniform(1.0, 600.0)
    lab.run(project, stage, after=rng.uniform(0.3, 0.9) * lab.seconds[stage.name], clock=jump)
    again = lab.run(project, stage, clock=jump)
    require_finished(lab, project, stage, again)
    return tell_how(again)


def lose_worker(lab: Lab) -> str:
    """A collecting process is killed under the job."""
    stage = BY_NAME["collect"]
    project = lab.copy(stage)
    job = lab.start(project, (*stage.argv, "--threads", "2"))
    workers: list[int] = []
    deadline = time.monotonic() + 60.0
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        workers = children(job)
    os.kill(workers[-1], signal.SIGKILL)
    status, text = lab.wait(), lab.log.read_text()
    assert status == 1, text
    assert "was killed by signal 9" in text.rstrip().rpartition("\n")[2], text
    require_finished(lab, project, stage, lab.run(project, stage))
    return "reported, then finished"


def children(parent: int) -> list[int]:
    """Process ids of the children of a process, in order."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            _, above = entry.read_text().rpartition(")")[2].split()[:2]
            found += [int(entry.parent.name)] * (int(above) == parent)
    return sorted(found)
