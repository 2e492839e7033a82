"""Whose a store or a policy is, before something is written in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError, ConfigError
from bmd_pipeline.io.files import hash_tree
from bmd_pipeline.io.provenance import (
    is_imported,
    require_demos,
    require_disposable_demos,
    require_disposable_policy,
    require_own_demos,
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
    require_disposable_demos(tmp_path / "demos.zarr", tmp_path / "demos.manifest.json", "collect")
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    require_disposable_demos(store, manifest, "collect")


def test_a_killed_collection_may_be_repeated_where_it_had_put_its_store(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    with pytest.raises(ArtifactError, match=r"has no demos\.manifest\.json beside it"):
        require_disposable_demos(store, manifest, "collect")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    require_disposable_demos(store, manifest, "collect")


@pytest.mark.parametrize("attributes", [{}, {"config_hash": "somebody's"}])
def test_a_manifest_and_a_lock_vouch_for_no_other_store(tmp_path: Path, attributes: dict[str, str]) -> None:
    store, manifest = make_store(tmp_path, attributes)
    vouch(store, manifest, "old")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    for command in ("collect", "import-demos"):
        with pytest.raises(ArtifactError, match=f"`{command}` would replace it: keep it with `bmd-pipeline import-"):
            require_disposable_demos(store, manifest, command)


def test_a_file_or_a_link_in_the_stores_place_is_somebodys(tmp_path: Path) -> None:
    place = tmp_path / "demos.zarr"
    place.symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        with pytest.raises(ArtifactError, match="was not made by `collect`"):
            require_disposable_demos(place, tmp_path / "demos.manifest.json", "collect")
        place.unlink()
        place.write_text("a zip archive")


def test_edits_are_kept_under_the_same_settings_and_refused_under_others(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    require_demos(store, manifest, "new")  # it will be collected anew
    (store / "chunk").write_text("edited")
    require_demos(store, manifest, "old")
    with pytest.raises(ArtifactError, match="was edited after its collection under other settings"):
        require_demos(store, manifest, "new")
    with pytest.raises(ArtifactError, match="was edited after its collection, and `collect` would replace it"):
        require_disposable_demos(store, manifest, "collect")


@pytest.mark.parametrize("text", ["{", "[]", '{"outputs": null}', '{"outputs": {}, "inputs": 3}'])
def test_a_damaged_manifest_leads_to_what_keeps_the_store_or_frees_its_place(tmp_path: Path, text: str) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    manifest.write_text(text)
    for command in ("collect", "import-demos"):
        with pytest.raises(ArtifactError, match=r"is damaged .*`bmd-pipeline import-demos .*, or move both away$"):
            require_disposable_demos(store, manifest, command)


def test_imported_demonstrations_are_replaced_by_no_collection_and_copies_by_another_import(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {})
    vouch(store, manifest, "", imported=True, inputs={"store": {}})
    require_demos(store, manifest, "any")
    require_disposable_demos(store, manifest, "import-demos")
    with pytest.raises(ArtifactError, match="was imported, and `collect` would replace it"):
        require_disposable_demos(store, manifest, "collect")
    vouch(store, manifest, "", imported=True, inputs={})  # there is no other copy
    with pytest.raises(ArtifactError, match="was imported, and `import-demos` would replace it"):
        require_disposable_demos(store, manifest, "import-demos")
    (store / "zarr.json").unlink()
    store.rmdir()
    with pytest.raises(ArtifactError, match=r"was imported and is missing: import it again with .*, or delete .*json"):
        require_demos(store, manifest, "any")


def test_a_policy_with_a_record_of_its_own_is_not_ours(tmp_path: Path) -> None:
    require_disposable_policy(tmp_path, "pretrain")
    (tmp_path / "policy.safetensors").touch()
    (tmp_path / "run.json").write_text(json.dumps({"stage": "pretrain"}))
    with pytest.raises(ArtifactError, match=r"keep it with `bmd-pipeline import-policy .*, or move it away"):
        require_disposable_policy(tmp_path, "pretrain")
    for inputs in ({}, {"policy.json": {}}):
        (tmp_path / "run.json").write_text(json.dumps({"stage": "pretrain", "imported": True, "inputs": inputs}))
        with pytest.raises(ArtifactError, match="was imported, and `pretrain` would replace it"):
            require_disposable_policy(tmp_path, "pretrain")
    require_disposable_policy(tmp_path, "import-policy")
    (tmp_path / "metrics.jsonl").touch()  # of a training
    require_disposable_policy(tmp_path, "pretrain")


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
