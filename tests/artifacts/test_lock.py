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
