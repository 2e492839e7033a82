import json
import time
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_file, hash_tree
from bmd_pipeline.io.provenance import describe_run, measure_cpu_seconds, read_record, require_run, write_run


def write(folder: Path, task: str = "Toy", stage: str = "pretrain") -> None:
    demos = folder.parent / "demos.zarr"
    demos.mkdir(exist_ok=True)
    (demos / "chunk").write_text("data")
    write_run(
        folder,
        describe_run(
            stage=stage,
            task=task,
            config={"seed": 4},
            config_hash="abc",
            seed=4,
            inputs={"demos": demos},
            started=time.time() - 2,
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


def test_outside_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no git at all
    record = describe_run(
        stage="collect", task="Toy", config={}, config_hash="", seed=0, inputs={}, started=time.time()
    )
    assert record["git_commit"] is None


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
    later = time.time() + 3600
    record = describe_run(stage="collect", task="Toy", config={}, config_hash="", seed=0, inputs={}, started=later)
    assert record["wall_s"] == 0.0
