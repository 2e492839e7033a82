"""Whose a store or a policy is, before something is written in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_file, hash_tree
from bmd_pipeline.io.provenance import (
    is_imported,
    read_cost,
    require_demos,
    require_disposable_demos,
    require_disposable_policy,
    require_own,
    require_own_demos,
    require_same_preset,
)


def make_store(folder: Path, attributes: dict[str, str]) -> tuple[Path, Path]:
    store = folder / "demos.zarr"
    store.mkdir()
    (store / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    return store, folder / "demos.manifest.json"


def vouch(store: Path, manifest: Path, config_hash: str, **more: object) -> None:
    outputs = {store.name: hash_tree(store)}
    manifest.write_text(json.dumps({"config_hash": config_hash, "outputs": outputs, **more}))


def test_what_was_collected_may_be_collected_anew(tmp_path: Path) -> None:
    require_disposable_demos(tmp_path / "demos.zarr", tmp_path / "demos.manifest.json", "Task", "collect")
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    require_disposable_demos(store, manifest, "Task", "collect")


def test_a_killed_collection_may_be_repeated_where_it_had_put_its_store(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    with pytest.raises(ArtifactError, match=r"has no demos\.manifest\.json beside it"):
        require_disposable_demos(store, manifest, "Task", "collect")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    require_disposable_demos(store, manifest, "Task", "collect")


@pytest.mark.parametrize("attributes", [{}, {"config_hash": "somebody's"}])
def test_a_manifest_and_a_lock_vouch_for_no_other_store(tmp_path: Path, attributes: dict[str, str]) -> None:
    store, manifest = make_store(tmp_path, attributes)
    vouch(store, manifest, "old")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    for command in ("collect", "import-demos"):
        with pytest.raises(ArtifactError, match=f"`{command}` would replace it: keep it with `bmd-pipeline import-"):
            require_disposable_demos(store, manifest, "Task", command)


def test_a_file_or_a_link_in_the_stores_place_is_somebodys(tmp_path: Path) -> None:
    place = tmp_path / "demos.zarr"
    place.symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        with pytest.raises(ArtifactError, match="was not made by `collect`"):
            require_disposable_demos(place, tmp_path / "demos.manifest.json", "Task", "collect")
        place.unlink()
        place.write_text("a zip archive")


def test_edits_are_kept_under_the_same_settings_and_refused_under_others(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    require_demos(store, manifest, "Task", "new")  # it will be collected anew
    (store / "chunk").write_text("edited")
    require_demos(store, manifest, "Task", "old")
    with pytest.raises(ArtifactError, match="was edited after its collection under other settings"):
        require_demos(store, manifest, "Task", "new")
    with pytest.raises(ArtifactError, match="was edited after its collection, and `collect` would replace it"):
        require_disposable_demos(store, manifest, "Task", "collect")


@pytest.mark.parametrize("text", ["{", "[]", '{"outputs": null}', '{"outputs": {}, "inputs": 3}'])
def test_a_damaged_manifest_leads_to_what_keeps_the_store_or_frees_its_place(tmp_path: Path, text: str) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    manifest.write_text(text)
    for command in ("collect", "import-demos"):
        with pytest.raises(ArtifactError, match=r"is damaged .*`bmd-pipeline import-demos .*, or move both away$"):
            require_disposable_demos(store, manifest, "Task", command)


def test_imported_demonstrations_are_replaced_by_no_collection_and_copies_by_another_import(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {})
    vouch(store, manifest, "", imported=True, inputs={"store": {}})
    require_demos(store, manifest, "Task", "any")
    require_disposable_demos(store, manifest, "Task", "import-demos")
    with pytest.raises(ArtifactError, match="was imported, and `collect` would replace it"):
        require_disposable_demos(store, manifest, "Task", "collect")
    vouch(store, manifest, "", imported=True, inputs={})  # there is no other copy
    with pytest.raises(ArtifactError, match="was imported, and `import-demos` would replace it"):
        require_disposable_demos(store, manifest, "Task", "import-demos")
    (store / "zarr.json").unlink()
    store.rmdir()
    with pytest.raises(ArtifactError, match=r"was imported and is missing: import it again with .*, or delete .*json"):
        require_demos(store, manifest, "Task", "any")


def test_a_policy_with_a_record_of_its_own_is_not_ours(tmp_path: Path) -> None:
    require_disposable_policy(tmp_path, "Task", "pretrain")
    (tmp_path / "policy.safetensors").touch()
    (tmp_path / "run.json").write_text(json.dumps({"stage": "pretrain"}))
    with pytest.raises(ArtifactError, match=r"keep it with `bmd-pipeline import-policy .*, or move it away"):
        require_disposable_policy(tmp_path, "Task", "pretrain")
    for inputs in ({}, {"policy.json": {}}):
        (tmp_path / "run.json").write_text(json.dumps({"stage": "pretrain", "imported": True, "inputs": inputs}))
        with pytest.raises(ArtifactError, match="was imported, and `pretrain` would replace it"):
            require_disposable_policy(tmp_path, "Task", "pretrain")
    require_disposable_policy(tmp_path, "Task", "import-policy")
    (tmp_path / "metrics.jsonl").touch()  # of a training
    require_disposable_policy(tmp_path, "Task", "pretrain")


def test_an_imported_policy_wants_imported_demonstrations(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    require_own_demos(policy, store)
    (policy / "run.json").write_text('{"imported": true}')
    with pytest.raises(ConfigError, match=r"^discover\.form must be published for an imported policy"):
        require_own_demos(policy, store)
    manifest.unlink()
    require_own_demos(policy, store)  # as --demos names it
    vouch(store, manifest, "", imported=True)
    require_own_demos(policy, store)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"imported": 1}', "null"])
def test_a_damaged_record_says_nothing_of_an_import(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert not is_imported(tmp_path / "run.json")
    assert not is_imported(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"schema_version": 1, "task": "Other", "stage": "pretrain"}'),  # of another task
        ("run.json", '{"schema_version": 1, "task": "Task", "stage": "discover"}'),  # of another stage
        ("run.json", '{"task": "Task"}'),
        ("eval.json", "thesis"),
        ("eval.json", "[]"),
        ("metrics.jsonl", '{"step": 1}\n'),
        ("metrics.jsonl", "\xff\n"),
        ("checkpoints/lock", "keep out"),
        ("policy.safetensors", ""),
        ("episodes.parquet", "PAR1"),
        ("trajectories.png", "PNG"),
        ("report.html", "<html>bmd-pipeline</html>"),
        ("report.html", '<meta name="generator" content="bmd-pipeline 0.1, report of Task">'),
        ("report.html", '<meta name="generator" content="bmd-pipeline 0.1, pretrain of Task2">'),
        ("theirs.json", '{"schema_version": 1, "task": "Task"}'),
    ],
)
def test_what_a_stage_did_not_write_is_not_replaced(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=f"{path.name} would be replaced, and `bmd-pipeline pretrain --task Task`"):
        require_own([path], "pretrain", "Task")
    assert path.read_text(encoding="latin-1") == text


def judge(policy: str = "dppo", policy_seed: int = 0, **more: Any) -> str:
    """An eval.json of one policy, as far as it tells whose it is."""
    head = {"schema_version": 3, "stage": "evaluate", "task": "Task"}
    return json.dumps({**head, "policies": {policy: {"seeds": [{"seed": policy_seed}]}}, **more})


@pytest.mark.parametrize(
    ("text", "stage", "of"),
    [
        (judge(), "summarise", {}),
        (judge(stage="summarise"), "evaluate", {}),
        (judge(), "evaluate", {"method": "dppo-bmd", "seed": 0}),
        (judge(policy_seed=1), "evaluate", {"method": "dppo", "seed": 0}),
        (judge(stage="finetune", method="dppo-bmd"), "finetune", {"method": "dppo", "seed": 0}),
        (judge(stage="curve", seed=3), "curve", {"method": "dppo", "seed": 0}),
        (judge(stage=None, provenance={"command": "bmd-pipeline verdict --task Task"}), "compare", {}),
        (judge(stage=None, provenance={"command": ""}), "compare", {}),
    ],
)
def test_a_document_of_another_stage_method_or_seed_is_not_replaced(
    tmp_path: Path, text: str, stage: str, of: dict[str, Any]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    options = "".join(f" --{name} {value}" for name, value in of.items())
    with pytest.raises(
        ArtifactError, match=f"x.json would be replaced, and `bmd-pipeline {stage} --task Task{options}`"
    ):
        require_own([path], stage, "Task", **of)


def test_what_a_stage_wrote_is_its_own(tmp_path: Path) -> None:
    path, page = tmp_path / "eval.json", tmp_path / "report.html"
    for text in (judge(), judge(stage=None, provenance={"command": "bmd-pipeline evaluate -t Task"})):
        path.write_text(text)
        require_own([path], "evaluate", "Task", method="dppo", seed=0)
    for kind, task in (("report of Task", "Task"), ("summary", None)):
        page.write_text(f'<meta name="generator" content="bmd-pipeline 0.1, {kind}">')
        require_own([page], kind.split()[0], task)


def test_tables_belong_to_the_document_that_names_them(tmp_path: Path) -> None:
    path, table, picture = (tmp_path / name for name in ("eval.json", "episodes.parquet", "trajectories.png"))
    table.write_text("PAR1 made by bmd-pipeline")
    picture.write_text("PNG made by bmd-pipeline")
    path.write_text(judge(tables={table.name: hash_file(table)}))
    require_own([path, table, picture], "evaluate", "Task")
    for other in (table, picture):
        with pytest.raises(ArtifactError, match=f"{other.name} would be replaced"):
            require_own([tmp_path / "mine.json", other], "evaluate", "Task")
    path.write_text(judge(tables={table.name: "another"}))
    with pytest.raises(ArtifactError, match=r"episodes\.parquet would be replaced"):
        require_own([path, table, picture], "evaluate", "Task")
    path.unlink()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").write_text("7 ")  # of a killed job
    require_own([table, picture], "evaluate", "Task")
    picture.write_text("theirs")
    with pytest.raises(ArtifactError, match=r"trajectories\.png would be replaced"):
        require_own([table, picture], "evaluate", "Task")


def test_imported_settings_are_ours_where_their_record_names_them(tmp_path: Path) -> None:
    settings, record = tmp_path / "policy.json", tmp_path / "run.json"
    settings.write_text('{"schema_version": 2, "task": "Task"}')
    outputs = {"outputs": {"policy.json": hash_file(settings)}}
    record.write_text(json.dumps({"schema_version": 1, "task": "Task", "stage": "pretrain", **outputs}))
    require_own([settings, record], "pretrain", "Task")
    settings.write_text('{"schema_version": 2, "task": "Task", "mine": 1}')
    with pytest.raises(ArtifactError, match=r"policy\.json would be replaced"):
        require_own([settings, record], "pretrain", "Task")


@pytest.mark.parametrize("name", ["checkpoints/epoch9.ckpt", "checkpoints/lock", "metrics.jsonl"])
def test_a_policy_beside_somebodys_traces_is_somebodys(tmp_path: Path, name: str) -> None:
    (tmp_path / "policy.safetensors").touch()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ArtifactError, match="holds a policy that `pretrain` did not make, and `pretrain`"):
        require_disposable_policy(tmp_path, "Task", "pretrain")


def test_a_link_to_nowhere_and_a_folder_are_somebodys(tmp_path: Path) -> None:
    (tmp_path / "eval.json").symlink_to("gone")
    (tmp_path / "policy.safetensors").mkdir()
    (tmp_path / "run.json").write_text('{"schema_version": 1, "task": "Task", "stage": "pretrain"}')
    for name in ("eval.json", "policy.safetensors"):
        with pytest.raises(ArtifactError, match="would be replaced"):
            require_own([tmp_path / name, tmp_path / "run.json"], "pretrain", "Task")


def test_weights_are_ours_beside_a_document_or_the_lock_of_a_killed_job(tmp_path: Path) -> None:
    weights, record, lock = tmp_path / "policy.safetensors", tmp_path / "run.json", tmp_path / "checkpoints" / "lock"
    weights.write_text("weights")
    record.write_text('{"schema_version": 1, "task": "Task", "stage": "pretrain"}')
    require_own([weights, record], "pretrain", "Task")
    record.unlink()
    lock.parent.mkdir()
    for ours in (f"123 {hash_file(weights)}\n", "123 \n", ""):
        lock.write_text(ours)
        require_own([weights, record, lock], "pretrain", "Task")
    for other in ("mine", "2024 thesis notes", "2024 \nnotes"):
        lock.write_text(other)
        with pytest.raises(ArtifactError, match="would be replaced"):
            require_own([weights, record], "pretrain", "Task")


def test_a_manifest_of_another_store_is_not_replaced(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    with pytest.raises(ArtifactError, match=r"demos\.manifest\.json stands for demos\.zarr, and `collect` would"):
        require_disposable_demos(tmp_path / "other.zarr", manifest, "Task", "collect")


def test_another_presets_record_is_not_replaced(tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    record.write_text('{"preset": "gpu"}')
    require_same_preset([record, tmp_path / "gone.json"], "gpu")
    require_same_preset([record], None)  # settings that no preset is known of
    with pytest.raises(ArtifactError, match="made with preset gpu and would be replaced with preset smoke"):
        require_same_preset([record], "smoke")


def test_what_an_output_took_stands_in_its_record_or_its_log(tmp_path: Path) -> None:
    record, log, document = (tmp_path / name for name in ("run.json", "metrics.jsonl", "eval.json"))
    record.write_text('{"cpu_seconds": 5}')
    assert read_cost(record) == 5.0
    log.write_text('{"cpu_seconds": 3}\n{"cpu_seconds": 70}\n')  # of two jobs
    assert read_cost(record) == 70.0
    log.write_text("no log")
    assert read_cost(record) == 5.0
    document.write_text('{"provenance": {"cpu_seconds": 2}}')
    assert read_cost(document) == 2.0
    document.write_text('{"provenance": 3}')
    assert read_cost(document) == read_cost(tmp_path / "gone.json") == read_cost(tmp_path) == 0.0
