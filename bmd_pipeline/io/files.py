"""Files and folders that appear whole or not at all, their hashes, and tensors and JSON documents on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmd_pipeline.errors import ArtifactError

if TYPE_CHECKING:  # Snakemake reads this module for every job: torch is imported where tensors are at hand
    from torch import Tensor


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole, making its folder where needed.

    Raises:
        ArtifactError: it can't be written; what was there before stays.
    """
    # The process id keeps two writers apart; the later rename wins, and either way the file is whole.
    sibling = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with convert_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with sibling.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sibling.replace(path)
        finally:
            with suppress(OSError):
                sibling.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def convert_os_errors(path: Path) -> Iterator[None]:
    """Turns an OSError in the block (disk full, read-only, a file in a folder's place) into an ArtifactError that names
    `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ArtifactError(f"{path} can't be written: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a JSON document whole; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def staged_directory(path: Path) -> Iterator[Path]:
    """Yields an empty sibling folder that takes the place of `path` once the block succeeded.

    Only one writer per path at a time: callers hold the lock of their stage. What a killed writer left behind is
    removed by the next one.

    Raises:
        ArtifactError: a file can't be written, in the block or here.
    """
    partial, replaced = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.replaced")
    try:
        with convert_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
            partial.mkdir()
            yield partial
            for entry in (*partial.rglob("*"), partial):
                _sync_folder(entry) if entry.is_dir() else _sync(entry)
            # A folder can't be renamed onto a filled one: between the two renames nothing is at `path`,
            # which reads as "not made yet", never as something half made.
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes half-written files that killed writers left in a folder; call it with the folder's lock in hand."""
    with convert_os_errors(folder):
        for leftover in folder.glob(".*.[0-9]*.tmp"):
            leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # some network file systems refuse to sync folders; the rename itself has happened
        _sync(path)


def read_json(path: Path, what: str, advice: str = "") -> dict[str, Any]:
    """Reads a JSON object; `what` it is, such as "policy settings", begins a message, and advice on damage ends it.

    Raises:
        ArtifactError: it is missing, unreadable or no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{what}: {path} is missing") from None
    except OSError as error:
        raise ArtifactError(f"{what}: {path} can't be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise damage_error(what, path, str(error), advice) from None
    if not isinstance(document, dict):
        raise damage_error(what, path, f"must hold a JSON object, got {type(document).__name__}", advice)
    return document


def damage_error(what: str, path: Path, reason: str, advice: str = "") -> ArtifactError:
    """What to raise where a file is damaged: what it is, why, and what to do, which is to make it again if not given.

    Only the first line of the reason is told.
    """
    advice = advice or f"delete it and {advise_again(path)}"
    return ArtifactError(f"{what}: {path} is damaged ({reason.splitlines()[0]}); {advice}")


def advise_again(path: Path) -> str:
    """How to make a stage's output again, as the tail of a message; Snakemake makes what is missing."""
    return f"make it again, with `snakemake --cores 2 {path}` or as it was made"


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(directory: Path) -> str:
    """SHA-256 over relative paths and contents of all files below a folder, whatever the order in which they are
    listed."""
    lines = sorted(
        f"{hash_file(path)}  {path.relative_to(directory).as_posix()}"
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".snakemake_timestamp"  # Snakemake's mark in folders that it made
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_path(path: Path) -> str:
    """`hash_tree` of a folder, `hash_file` of a file."""
    return hash_tree(path) if path.is_dir() else hash_file(path)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of tensors, in the order of their names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


_METADATA = "metadata"


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes named tensors, on any device, and a few strings beside them, whole.

    The format is safetensors: reading one can execute nothing, and the same content gives the same bytes.
    """
    from safetensors.torch import save

    # safetensors writes several metadata keys in arbitrary order: one key keeps the bytes reproducible.
    packed = {_METADATA: json.dumps(metadata, sort_keys=True)} if metadata else None
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(content, packed))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file, on the CPU; they can be computed with.

    Raises:
        ArtifactError: it is missing or damaged, or holds a value that is not finite.
    """
    import torch

    tensors = read_weights(path)[0]
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"weights: {path}: {name} is not finite; delete it and {advise_again(path)}")
    return tensors


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a file.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ArtifactError(f"weights: {path} is missing")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # clone: the tensors of an open file are views of its mapped pages, which a rewrite would change
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise damage_error("weights", path, str(error)) from None
    return tensors, metadata
