"""Whether a demonstration store is still the one that its manifest describes, and may be collected anew.

Snakemake doesn't look into folders: it follows a store through the manifest. What someone edits inside the
store afterwards must still reach training. And Snakemake removes a rule's outputs before the rule runs, so what
someone else put in their place must be noticed before.

Snakemake asks this for every job: nothing here imports torch or zarr unless it has to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bmd_pipeline.artifacts.documents import read_json
from bmd_pipeline.artifacts.layout import JOURNAL_FILE, METRICS_FILE, RUN_FILE, Layout
from bmd_pipeline.errors import ArtifactError


def find_edited_hash(store: Path, manifest: Path) -> str | None:
    """Tree hash of a store that was edited after its manifest was written, or None if it was not.

    Costs a directory listing unless something in the store is newer than the manifest.

    Args:
        store: the zarr folder.
        manifest: its manifest; while there is none, nothing can differ from it.
    """
    if not store.is_dir() or not manifest.is_file():
        return None
    written = manifest.stat().st_mtime_ns
    if all(path.stat().st_mtime_ns <= written for path in store.rglob("*") if path.name[0] != "."):
        return None
    from bmd_pipeline.artifacts.hashing import hash_tree

    found = hash_tree(store)
    recorded = read_json(manifest, "manifest").get("outputs", {}).get(store.name)
    return None if found == recorded else found


def may_collect(store: Path, manifest: Path, config_hash: str) -> bool:
    """Whether a collection may write a store without a loss to anybody.

    Args:
        store: its place.
        manifest: its manifest.
        config_hash: hash of the settings that would be collected under.

    Returns:
        False where the same settings made the store and someone edited it since: it is to be taken as it is.

    Raises:
        ArtifactError: something is there that no collection made, or that was edited and would now be made under
            other settings.
    """
    if not store.is_symlink() and (not store.exists() or (store.is_dir() and _is_empty(store))):
        return True
    use = f"train on it with collect.store={store}, or move it away"
    doubt = _doubt_collection(store, manifest)
    if doubt is not None:
        raise ArtifactError(f"{store} {doubt}, and `collect` would replace it: {use}")
    if find_edited_hash(store, manifest) is None:
        return True
    if read_json(manifest, "manifest").get("config_hash") != config_hash:
        raise ArtifactError(
            f"{store} was edited after its collection, and `collect` would replace it under other settings: {use}"
        )
    return False


def require_trained(folder: Path) -> None:
    """Checks that nobody's policy is lost where `pretrain` will write one.

    Raises:
        ArtifactError: weights are there that no run of `pretrain` wrote.
    """
    weights, run = folder / "policy.safetensors", folder / RUN_FILE
    traces = (folder / METRICS_FILE, Layout.state(folder))  # of a run that was killed before it wrote run.json
    if not weights.exists() or any(path.exists() for path in traces):
        return
    # Somebody else's policy may have a run.json too, from `write_run`; what was taken over has a copy elsewhere.
    if not run.is_file() or "taken_over" not in read_json(run, f"record of {folder}"):
        raise ArtifactError(
            f"{folder} holds a policy that `pretrain` did not make and would replace: move it elsewhere, and use it "
            "with pretrain.policy_folder"
        )


def require_brought(setting: str, paths: Iterable[str]) -> None:
    """Checks that the files and folders that a setting names are there.

    Raises:
        ArtifactError: one is not.
    """
    for path in paths:
        if not Path(path).exists():
            raise ArtifactError(f"{setting}: {path} doesn't exist")


def hash_brought(paths: Iterable[str]) -> str:
    """Hash of the content of files and folders that somebody brought along."""
    from bmd_pipeline.artifacts.hashing import hash_path

    return " ".join(hash_path(Path(path)) for path in paths)


def _is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what Snakemake keeps in its outputs (its time stamp)."""
    return all(path.name[0] == "." for path in folder.iterdir())


def _doubt_collection(store: Path, manifest: Path) -> str | None:
    """Why a store may be somebody's own and not a collection's; None if it is a collection's, maybe edited."""
    try:
        attributes = json.loads((store / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        made_under = attributes["config_hash"]
    except (OSError, ValueError, KeyError, TypeError):  # a file, another format, another writer
        return "was not made by `collect`"
    if manifest.is_file():
        same = read_json(manifest, "manifest").get("config_hash") == made_under
        return None if same else f"is not the store of {manifest}"
    # A killed collection may have put its store in place and not have come to the manifest.
    return None if (Layout.state(store.parent) / JOURNAL_FILE).is_file() else f"has no {manifest.name} beside it"
