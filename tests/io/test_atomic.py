import json
import math
import shutil
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import convert_os_errors, staged_directory, write_bytes, write_json, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_write_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "λ")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "λ"
    assert names(tmp_path / "a") == {"b.txt"}


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ArtifactError, match=rf"^{path} can't be written: No space left on device$"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"a"}


def test_of_many_files_that_can_not_be_copied_the_first_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_text(tmp_path / "from" / name, name)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError) as caught, convert_os_errors(tmp_path / "to"):
        shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=fail)
    assert str(caught.value) == f"{tmp_path / 'to'} can't be written: [Errno 28] No space left on device"


def test_json_refuses_what_json_has_no_word_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": math.nan})
    assert names(tmp_path) == set()
    write_json(tmp_path / "a.json", {"β": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"β": [1, 2]}


def test_staged_directory_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    (target / "stale").write_text("old")
    with staged_directory(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "fresh").write_text("new")
        assert names(target) == {"stale"}  # untouched until the block is over
    assert names(target) == {"sub"}
    assert names(tmp_path) == {"store"}


def test_failed_staging_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "store"
    target.mkdir()
    (target / "kept").write_text("old")
    with pytest.raises(RuntimeError), staged_directory(target) as folder:  # noqa: PT012
        (folder / "half").write_text("new")
        raise RuntimeError
    assert names(target) == {"kept"}
    assert names(tmp_path) == {"store"}


def test_leftovers_of_a_killed_writer_are_not_taken_over(tmp_path: Path) -> None:
    with staged_directory(tmp_path / "store") as folder:
        leftover = folder
    leftover.mkdir()
    (leftover / "half").write_text("from a killed job")
    with staged_directory(tmp_path / "store") as folder:
        assert names(folder) == set()
    assert names(tmp_path) == {"store"}


def test_what_is_planted_where_a_file_is_prepared_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can foresee the name; if somebody could, this would be refused."""
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    (tmp_path / f".a.{'0' * 16}.tmp").symlink_to("victim")
    with pytest.raises(ArtifactError, match="can't be written: File exists"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("precious")
    (tmp_path / "file").symlink_to("elsewhere/kept")
    (tmp_path / "store").symlink_to("elsewhere")
    write_bytes(tmp_path / "file", b"new")
    with staged_directory(tmp_path / "store"):
        pass
    assert (tmp_path / "elsewhere" / "kept").read_text() == "precious"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == {"elsewhere", "file", "store"}
    assert names(tmp_path / "store") == set()


def test_folders_above_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "results").symlink_to("scratch")
    write_bytes(tmp_path / "results" / "a" / "b", b"new")
    assert (tmp_path / "scratch" / "a" / "b").read_bytes() == b"new"


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ArtifactError, match=rf"^{tmp_path}/a/b can't be written: "):
        write_bytes(tmp_path / "a" / "b", b"")
    with (
        pytest.raises(ArtifactError, match=rf"^{tmp_path}/a/store can't be written: "),
        staged_directory(tmp_path / "a" / "store"),
    ):
        pass
