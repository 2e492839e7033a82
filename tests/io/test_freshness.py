"""Whose a store or a policy is, before something is written in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import hash_tree
from bmd_pipeline.io.provenance import may_collect, require_trained


def make_store(folder: Path, attributes: dict[str, str]) -> tuple[Path, Path]:
    store = folder / "demos.zarr"
    store.mkdir()
    (store / "zarr.json").write_text(json.dumps({"attributes": attributes}))
    return store, folder / "demos.manifest.json"


def vouch(store: Path, manifest: Path, config_hash: str) -> None:
    manifest.write_text(json.dumps({"config_hash": config_hash, "outputs": {store.name: hash_tree(store)}}))


def test_what_was_collected_may_be_collected_anew(tmp_path: Path) -> None:
    assert may_collect(tmp_path / "demos.zarr", tmp_path / "demos.manifest.json", "new")
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    assert may_collect(store, manifest, "new")


def test_a_killed_collection_may_be_repeated_where_it_had_put_its_store(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    with pytest.raises(ArtifactError, match=r"has no demos\.manifest\.json beside it"):
        may_collect(store, manifest, "old")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    assert may_collect(store, manifest, "old")


@pytest.mark.parametrize("attributes", [{}, {"config_hash": "somebody's"}])
def test_a_manifest_and_a_lock_vouch_for_no_other_store(tmp_path: Path, attributes: dict[str, str]) -> None:
    store, manifest = make_store(tmp_path, attributes)
    vouch(store, manifest, "old")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lock").touch()
    with pytest.raises(ArtifactError, match=r"would replace it: train on it with collect\.store="):
        may_collect(store, manifest, "old")


def test_a_file_or_a_link_in_the_stores_place_is_somebodys(tmp_path: Path) -> None:
    place = tmp_path / "demos.zarr"
    place.symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        with pytest.raises(ArtifactError, match="was not made by `collect`"):
            may_collect(place, tmp_path / "demos.manifest.json", "old")
        place.unlink()
        place.write_text("a zip archive")


def test_edits_are_kept_under_the_same_settings_and_refused_under_others(tmp_path: Path) -> None:
    store, manifest = make_store(tmp_path, {"config_hash": "old"})
    vouch(store, manifest, "old")
    (store / "chunk").write_text("edited")
    assert not may_collect(store, manifest, "old")
    with pytest.raises(ArtifactError, match="was edited after its collection"):
        may_collect(store, manifest, "new")


def test_a_policy_with_a_record_of_its_own_is_not_ours(tmp_path: Path) -> None:
    require_trained(tmp_path)
    (tmp_path / "policy.safetensors").touch()
    (tmp_path / "run.json").write_text(json.dumps({"stage": "pretrain"}))
    with pytest.raises(ArtifactError, match=r"move it elsewhere, and use it with pretrain\.policy_folder"):
        require_trained(tmp_path)
    (tmp_path / "metrics.jsonl").touch()  # of a training
    require_trained(tmp_path)
