import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from bmd_pipeline.artifacts.lock import FolderLock
from bmd_pipeline.errors import ArtifactError

HOLD = """
import sys, time
from pathlib import Path
from bmd_pipeline.artifacts.lock import FolderLock
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


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=rf"^{tmp_path}/file/checkpoints/lock can't be written: Not a directory$"):
        FolderLock(tmp_path / "file" / "checkpoints")
