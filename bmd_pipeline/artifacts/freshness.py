"""Whether a demonstration store is still the one that its manifest describes.

Snakemake doesn't look into folders: it follows a store through the manifest. What someone edits inside the
store afterwards must still reach training.
"""

from __future__ import annotations

from pathlib import Path


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
    from bmd_pipeline.artifacts.documents import read_json
    from bmd_pipeline.artifacts.hashing import hash_tree

    found = hash_tree(store)
    recorded = read_json(manifest, "manifest").get("outputs", {}).get(store.name)
    return None if found == recorded else found
