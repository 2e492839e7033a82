import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bmd_pipeline.errors import AlreadyWritten, ArtifactError
from bmd_pipeline.io.progress import FolderLock, TrainingState, Wait
from bmd_pipeline.stages.console import Stop, Stopped

HOLD = """
import sys, time
from pathlib import Path
from bmd_pipeline.io.progress import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_excludes_a_second_writer_until_released(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "checkpoints"
    with FolderLock(folder):
        with pytest.raises(ArtifactError, match=r"another job is writing .*out \(process \d+"):
            FolderLock(folder)
        with pytest.raises(ArtifactError):  # a refused attempt must not free or rewrite the lock
            FolderLock(folder)
    FolderLock(folder).release()


def test_dies_with_its_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ArtifactError, match=f"process {process.pid}"):
            FolderLock(tmp_path)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    FolderLock(tmp_path).release()


def test_discard_leaves_no_trace_but_keeps_other_files(tmp_path: Path) -> None:
    FolderLock(tmp_path / "a").discard()
    assert not (tmp_path / "a").exists()
    lock = FolderLock(tmp_path / "b")
    (tmp_path / "b" / "state").write_text("x")
    lock.discard()
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["state"]


def test_a_lock_on_a_removed_file_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a job's opening the file and its locking it, the job that held the lock may finish and remove it."""
    first = FolderLock(tmp_path / "a")
    flock = fcntl.flock

    def finish_first(file: int, how: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        first.discard()
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", finish_first)
    with FolderLock(tmp_path / "a"), pytest.raises(ArtifactError, match="another job"):
        FolderLock(tmp_path / "a")


def wait_meanwhile(event: Callable[[], None], seconds: float = 60.0) -> tuple[Wait, list[str]]:
    """Patience during which something happens once, and what was logged meanwhile."""
    logged: list[str] = []
    pending = [event]
    return Wait(seconds, lambda: pending.pop()() if pending else None, logged.append), logged


@pytest.fixture
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bmd_pipeline.io.progress.POLL_S", 0.001)


@pytest.mark.usefixtures("fast_polls")
def test_what_another_job_wrote_while_this_one_waited_is_taken(tmp_path: Path) -> None:
    wait, logged = wait_meanwhile(FolderLock(tmp_path / "out" / "a", "same").discard)
    with pytest.raises(AlreadyWritten, match=r"out meanwhile$"):
        FolderLock(tmp_path / "out" / "a", "same", wait)
    assert logged == [f"another job is writing {tmp_path / 'out'} (process {os.getpid()}); waiting for it"]
    assert not (tmp_path / "out" / "a").exists()  # a later job starts afresh


@pytest.mark.usefixtures("fast_polls")
def test_what_another_job_wrote_of_something_else_is_not_taken(tmp_path: Path) -> None:
    wait, _ = wait_meanwhile(FolderLock(tmp_path / "a", "other").discard)
    with FolderLock(tmp_path / "a", "same", wait), pytest.raises(ArtifactError, match="another job"):
        FolderLock(tmp_path / "a")


@pytest.mark.usefixtures("fast_polls")
def test_a_job_that_died_is_taken_over_from(tmp_path: Path) -> None:
    wait, _ = wait_meanwhile(FolderLock(tmp_path / "a", "same").release)
    with FolderLock(tmp_path / "a", "same", wait), pytest.raises(ArtifactError, match="another job"):
        FolderLock(tmp_path / "a")


@pytest.mark.usefixtures("fast_polls")
def test_patience_ends(tmp_path: Path) -> None:
    wait, _ = wait_meanwhile(lambda: None, seconds=0.02)
    with FolderLock(tmp_path / "a", "same"), pytest.raises(ArtifactError, match="another job is writing"):
        FolderLock(tmp_path / "a", "same", wait)


@pytest.mark.usefixtures("fast_polls")
def test_a_job_that_is_asked_to_stop_waits_no_longer(tmp_path: Path) -> None:
    stop = Stop(max_minutes=0.0)
    with FolderLock(tmp_path / "a", "same"), pytest.raises(Stopped, match="time limit"):
        FolderLock(tmp_path / "a", "same", Wait(60.0, stop.check, lambda _: None))


@pytest.fixture(params=[errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system without locks; what it says."""

    def refuse(file: int, how: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr("fcntl.flock", refuse)
    return os.strerror(request.param)


def test_where_there_are_no_locks_it_is_refused_with_the_setting_that_does_without(
    tmp_path: Path, no_locks: str
) -> None:
    cause = f"out is on a file system without locks \\(flock: {no_locks}\\), .* set execution.require_lock to false"
    with pytest.raises(ArtifactError, match=cause):
        FolderLock(tmp_path / "out" / "checkpoints")
    assert not (tmp_path / "out" / "checkpoints").exists()
    (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out" / "checkpoints" / "state").write_text("progress")
    with pytest.raises(ArtifactError, match=cause):
        TrainingState(tmp_path / "out" / "checkpoints", "same")
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["state"]


@pytest.mark.usefixtures("no_locks")
def test_what_requires_no_lock_goes_on_where_there_are_none(tmp_path: Path) -> None:
    FolderLock(tmp_path / "out" / "checkpoints", required=False).discard()
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_what_requires_no_lock_is_kept_apart_where_there_are_locks(tmp_path: Path) -> None:
    with FolderLock(tmp_path, required=False), pytest.raises(ArtifactError, match="another job is writing"):
        FolderLock(tmp_path, required=False)


def test_other_trouble_with_a_lock_is_named_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: int, how: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(ArtifactError, match=r"lock can't be written: Input/output error"):
        FolderLock(tmp_path, required=False)


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=rf"^{tmp_path}/file/checkpoints/lock can't be written: Not a directory$"):
        FolderLock(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["link", "hard link"])
def test_a_lock_that_is_another_file_is_not_written(tmp_path: Path, make: Callable[[Path, Path], None]) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "checkpoints").mkdir()
    make(tmp_path / "victim", tmp_path / "checkpoints" / "lock")
    with pytest.raises(ArtifactError, match=r"checkpoints/lock can't be written: it is .*; remove it$"):
        FolderLock(tmp_path / "checkpoints")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_lock_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(ArtifactError, match=r"lock can't be written: .* or no file; remove it$"):
        FolderLock(tmp_path)
