import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io import provenance
from bmd_pipeline.io.files import hash_file, hash_path, hash_tree
from bmd_pipeline.io.provenance import (
    RunStart,
    describe_run,
    find_edited_hash,
    measure_cpu_seconds,
    read_record,
    require_run,
    write_run,
)


def write(folder: Path, task: str = "Toy", stage: str = "pretrain") -> None:
    demos = folder.parent / "demos.zarr"
    demos.mkdir(exist_ok=True)
    (demos / "chunk").write_text("data")
    start = RunStart(print, demos)
    start.time -= 2
    write_run(
        folder,
        describe_run(
            stage=stage,
            task=task,
            config={"seed": 4},
            config_hash="abc",
            seed=4,
            inputs={"demos": demos},
            start=start,
            extra={"note": "λ"},
        ),
    )


def test_run_says_how_it_came_to_be(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "lock").write_text("")
    (folder / "weights").write_text("w")
    write(folder)
    record = read_record(folder / "run.json")
    assert record["stage"] == "pretrain"
    assert record["seed"] == 4
    assert record["note"] == "λ"
    assert record["wall_s"] >= 2
    assert 0 < record["cpu_seconds"] <= measure_cpu_seconds()
    assert record["outputs"] == {"weights": hash_file(folder / "weights")}  # neither progress nor itself
    assert record["inputs"]["demos"]["sha256"] == hash_tree(tmp_path / "demos.zarr")
    assert record["packages"]["torch"].startswith("2.")
    assert {"scipy", "pyarrow"} <= record["packages"].keys()


def test_require_run(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    with pytest.raises(ArtifactError, match=r"run\.json is missing: make it with `bmd-pipeline pretrain --task Toy`"):
        require_run(folder, "pretrain", "Toy")
    with pytest.raises(ArtifactError, match="with `make policy`"):
        require_run(folder, "pretrain", "Toy", command="make policy")
    write(folder)
    assert require_run(folder, "pretrain", "Toy")["config_hash"] == "abc"
    with pytest.raises(ArtifactError, match="made for task Toy, not for Other"):
        require_run(folder, "pretrain", "Other")
    with pytest.raises(ArtifactError, match="by stage pretrain, not by discover"):
        require_run(folder, "discover", "Toy")
    (folder / "run.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        require_run(folder, "pretrain", "Toy")


def test_a_hook_of_git_changes_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = provenance.git_commit()
    monkeypatch.setenv("GIT_DIR", "/another/repository")
    assert provenance.git_commit() == commit


def test_outside_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git at all
    assert describe(RunStart(print))["git_commit"] is None


def test_files_must_still_be_what_the_run_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    folder.mkdir()
    for name in ("weights", "metrics.jsonl"):
        (folder / name).write_text("w")
    write(folder)
    (folder / "metrics.jsonl").write_text("edited: nobody decides by it")
    require_run(folder, "pretrain", "Toy")
    (folder / "weights").write_text("v")
    with pytest.raises(ArtifactError, match=rf"^{folder}/weights is damaged or edited: .*`bmd-pipeline pretrain"):
        require_run(folder, "pretrain", "Toy")
    record = json.loads((folder / "run.json").read_text()) | {"stage": "finetune", "method": "dppo"}
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=r"`bmd-pipeline finetune --task Toy --method dppo --seed 4`"):
        require_run(folder, "finetune", "Toy")
    write(folder)
    (folder / "weights").unlink()
    with pytest.raises(ArtifactError, match=rf"^{folder}/weights is damaged"):
        require_run(folder, "pretrain", "Toy")
    for text in ("{", "[]", '{"task": "Toy", "outputs": ["weights"]}', '{"task": "Toy", "inputs": null}'):
        (folder / "run.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"run\.json is damaged .*; make it again with `bmd-pipeline pretrain"):
            require_run(folder, "pretrain", "Toy")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("inputs", []), ("inputs", {"demos": "x"}), ("config", 5), ("config", {"finetune": 5})),
        *(("wall_s", "long"), ("command", None), ("git_commit", 1), ("kept", [1]), ("config_hash", 7)),
    ],
)
def test_a_record_with_fields_of_other_types_is_damaged(tmp_path: Path, field: str, value: object) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"config": {"seed": 0}, field: value}))
    with pytest.raises(ArtifactError, match=r"run\.json is damaged \(\w+ is no "):
        read_record(tmp_path / "run.json")


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    start = RunStart(print)
    start.time = time.time() + 3600
    assert describe(start)["wall_s"] == 0.0


def describe(start: RunStart, **inputs: Path) -> dict[str, Any]:
    return describe_run(stage="collect", task="Toy", config={}, config_hash="", seed=0, inputs=inputs, start=start)


def test_inputs_are_those_of_the_start_and_what_changed_is_said(tmp_path: Path) -> None:
    """Also where the time of a file tells nothing, and where it is gone."""
    store, weights, gone = tmp_path / "demos.zarr", tmp_path / "weights", tmp_path / "gone"
    store.mkdir()
    for path in (store / "chunk", weights, gone):
        path.write_text("read")
    inputs = {"demos": store, "weights": weights, "gone": gone}
    said: list[str] = []
    start = RunStart(said.append, *inputs.values())
    read = {name: hash_path(path) for name, path in inputs.items()}
    start.require_unchanged()
    stat = (store / "chunk").stat()
    (store / "chunk").write_text("late")
    os.utime(store / "chunk", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    gone.unlink()
    found = describe(start, **inputs)["inputs"]
    assert {name: file["sha256"] for name, file in found.items()} == read
    assert {name for name, file in found.items() if file.get("changed")} == {"demos", "gone"}
    assert [line.split(" changed while collect ran")[0] for line in said] == [str(store), str(gone)]
    with pytest.raises(ArtifactError, match=r"demos\.zarr changed while it was read; give the same command again"):
        start.require_unchanged()


def test_files_that_a_record_names_are_inputs_too(tmp_path: Path) -> None:
    """Also where the record itself stays as it was, and where what has come can't be read."""
    inputs, said = {name: tmp_path / name / "run.json" for name in ("policy", "modes", "finetuned")}, list[str]()
    for record in inputs.values():
        record.parent.mkdir()
        for name in ("weights", "metrics.jsonl"):
            (record.parent / name).write_text("read")
        write(record.parent)
    start = RunStart(said.append, *inputs.values())
    read = {name: hash_path(path) for name, path in inputs.items()}
    (tmp_path / "policy" / "weights").write_text("late")
    (tmp_path / "modes" / "metrics.jsonl").write_text("late, and decides nothing")
    (tmp_path / "finetuned" / "weights").unlink()
    os.mkfifo(tmp_path / "finetuned" / "weights")
    found = describe(start, **inputs)["inputs"]
    assert {name: file["sha256"] for name, file in found.items()} == read
    assert {name for name, file in found.items() if file.get("changed")} == {"policy", "finetuned"}
    changed = [str(tmp_path / name / "weights") for name in ("policy", "finetuned")]
    assert [line.split(" changed while collect ran")[0] for line in said] == changed


def test_the_commit_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["before", "after"])
    monkeypatch.setattr(provenance, "git_commit", lambda: next(commits))
    said: list[str] = []
    assert describe(RunStart(said.append))["git_commit"] == "before"
    assert said == ["the code changed while collect ran: its record names the commit that collect began with"]


def test_a_folder_in_anothers_place_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dppo"
    folder.mkdir()
    write(folder, stage="finetune")
    record = json.loads((folder / "run.json").read_text()) | {"method": "dppo"}
    (folder / "run.json").write_text(json.dumps(record))
    require_run(folder, "finetune", "Toy", method="dppo", seed=4)
    for of, message in (
        ({"seed": 0}, "seed 4, not for seed 0"),
        ({"method": "res"}, "method dppo, not for method res"),
    ):
        with pytest.raises(ArtifactError, match=f"dppo was made for {message}"):
            require_run(folder, "finetune", "Toy", **of)


@pytest.mark.parametrize("size", ["same", "other"])
def test_a_store_is_edited_if_its_content_is_whatever_its_times_say(tmp_path: Path, size: str) -> None:
    store, manifest = tmp_path / "demos.zarr", tmp_path / "demos.manifest.json"
    store.mkdir()
    chunk = store / "chunk"
    chunk.write_text("data")
    manifest.write_text(json.dumps({"outputs": {store.name: hash_tree(store)}}))
    assert find_edited_hash(store, manifest) is None
    backup = tmp_path / "backup"
    backup.write_text("atad" if size == "same" else "older data")
    os.utime(backup, (1, 1))  # cp -p, rsync and a restored backup keep times
    backup.replace(chunk)
    assert find_edited_hash(store, manifest) == hash_tree(store)
    os.utime(chunk)
    chunk.write_text("data")
    assert find_edited_hash(store, manifest) is None
    (store / "more").write_text("")
    os.utime(store / "more", (1, 1))
    assert find_edited_hash(store, manifest) == hash_tree(store)


def test_a_store_is_hashed_once_while_its_files_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest = tmp_path / "demos.zarr", tmp_path / "demos.manifest.json"
    store.mkdir()
    (store / "chunk").write_text("data")
    manifest.write_text(json.dumps({"outputs": {store.name: hash_tree(store)}}))
    hashed: list[Path] = []
    monkeypatch.setattr(provenance, "hash_tree", lambda path: hashed.append(path) or hash_tree(path))
    for _ in range(3):
        assert find_edited_hash(store, manifest) is None
    assert hashed == [store]
