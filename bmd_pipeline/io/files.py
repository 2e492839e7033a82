"""Files and folders that appear whole or not at all, their hashes, and tensors, tables and JSON documents on disk.

Whoever reads a file asks first what it is and how large: a pipe may never end, and neither may a device behind a link.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmd_pipeline.errors import ArtifactError

if TYPE_CHECKING:  # Snakemake reads this module for every job: torch is imported where tensors are at hand
    import pyarrow as pa
    from torch import Tensor

MAX_DOCUMENT_BYTES = 2**28
"""Of a file that is read as text: JSON, JSON lines, YAML."""
MAX_WEIGHTS_BYTES = 2**32
MAX_TABLE_VALUES = 2 * 10**8
"""Of a parquet file, whose pages may unfold a thousandfold."""

# ---- Writing: whole or not at all ----

_RANDOM = "[0-9a-f]" * 16
"""Pattern of what `_name_beside` draws."""
MAX_NAME_BYTES = 255 - len(f"..{'0' * 16}.replaced")
"""Of a name of which another one is made beside it, while it is written."""


def _name_beside(path: Path, kind: str) -> Path:
    """A hidden name beside a path that nobody can foresee, so that nothing of somebody else's is there."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{kind}")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole, making its folder where needed.

    Raises:
        ArtifactError: it can't be written; what was there before stays.
    """
    sibling = _name_beside(path, "tmp")  # of two writers the later rename wins, and either way the file is whole
    with convert_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with sibling.open("xb") as file:
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
        copies = error.args[0] if isinstance(error, shutil.Error) else None  # (from, to, why) of each file
        reason = error.strerror or (copies[0][2] if isinstance(copies, list) else str(error)) or type(error).__name__
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
    partial, replaced = _name_beside(path, "partial"), _name_beside(path, "replaced")
    try:
        with convert_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for kind in ("partial", "replaced"):
                for leftover in path.parent.glob(f".{glob.escape(path.name)}.{_RANDOM}.{kind}"):
                    _remove_tree(leftover)
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
        _remove_tree(partial)
        _remove_tree(replaced)


def _remove_tree(path: Path) -> None:
    """Removes a folder, or a link to one and not what it leads to; what can't be removed stays."""
    if path.is_symlink():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes half-written files that killed writers left in a folder; call it with the folder's lock in hand."""
    with convert_os_errors(folder):
        for leftover in folder.glob(f".*.{_RANDOM}.tmp"):
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


# ---- Reading: what is no file is refused before a byte is asked for, and so is what is too large ----


def open_file(path: Path, max_bytes: int | None = None) -> io.BufferedReader:
    """Opens a regular file, or what a link to one leads to, for reading; `max_bytes` is its largest size, if given.

    Raises:
        ArtifactError: it is a pipe, a device, a folder, or larger.
        OSError: it is missing, or may not be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would wait for a writer
    state = os.fstat(descriptor)
    reason = None
    if not stat.S_ISREG(state.st_mode):
        reason = "it is no regular file but a folder, a pipe or a device"
    elif max_bytes is not None and state.st_size > max_bytes:
        reason = f"it has {state.st_size} bytes, and at most {max_bytes} are read"
    if reason is not None:
        os.close(descriptor)
        raise ArtifactError(f"{path} can't be read: {reason}")
    return os.fdopen(descriptor, "rb")


def is_there(path: Path) -> bool:
    """Whether a file that may be absent is there; `path.is_file()` would take a pipe in its place for nothing at all.

    Raises:
        ArtifactError: something else is there than a regular file or a link to one.
    """
    if path.is_file():
        return True
    if os.path.lexists(path):
        raise ArtifactError(
            f"{path} is no regular file but a folder, a pipe, a device or a broken link: move it away or delete it"
        )
    return False


def read_file(path: Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """A regular file's content; errors as in `open_file`."""
    with open_file(path, max_bytes) as file:
        return file.read(max_bytes)  # what the system makes up has size 0, and may be endless


_HALF_LETTER = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON may write half of a letter, which no text file can hold."""


def parse_json(text: str | bytes) -> Any:
    """Parses JSON of which every number fits 64 bits and is finite, and every text can be written.

    Raises:
        ValueError: it is not such JSON.
    """

    def read_integer(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
            raise ValueError(f"the number {digits[:20]}… is too large")
        return int(digits)

    def read_float(digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            raise ValueError(f"the number {digits[:20]} is not finite")
        return value

    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        found = json.loads(text, parse_int=read_integer, parse_float=read_float, parse_constant=read_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _HALF_LETTER.search(text):
        json.dumps(found, ensure_ascii=False).encode()
    return found


def read_json(path: Path, what: str, advice: str = "") -> dict[str, Any]:
    """Reads a JSON object; `what` it is, such as "policy settings", begins a message, and advice on damage ends it.

    Raises:
        ArtifactError: it is missing, unreadable or no JSON object.
    """
    try:
        document = parse_json(read_file(path))
    except FileNotFoundError:
        raise ArtifactError(f"{what}: {path} is missing") from None
    except OSError as error:
        raise ArtifactError(f"{what}: {path} can't be read: {error.strerror or error}") from None
    except ValueError as error:
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


# ---- Hashes ----


def hash_file(path: Path) -> str:
    """SHA-256 of a regular file's content; errors as in `open_file`."""
    with open_file(path) as file:
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


# ---- Tensors and tables ----

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
    """Reads all tensors of a file, on the CPU; they can be computed with, in 32 bits too.

    Raises:
        ArtifactError: it is missing or damaged, or holds a value that is not finite, or floats of less than 16 bits.
    """
    import torch

    tensors = read_weights(path)[0]
    for name, tensor in tensors.items():
        is_float = tensor.is_floating_point()
        if is_float and tensor.itemsize < 2:
            raise damage_error("weights", path, f"{name} is of type {tensor.dtype}, which can't be computed with")
        if not bool(torch.isfinite(tensor.float() if is_float else tensor).all()):
            raise ArtifactError(f"weights: {path}: {name} is not finite; delete it and {advise_again(path)}")
    return tensors


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a file.

    Raises:
        ArtifactError: it is missing or damaged, or larger than `MAX_WEIGHTS_BYTES`.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise ArtifactError(f"weights: {path} is missing")
    try:
        open_file(path, MAX_WEIGHTS_BYTES).close()  # the format's header says nothing that its file does not hold
        with safe_open(path, framework="pt", device="cpu") as file:
            # clone: the tensors of an open file are views of its mapped pages, which a rewrite would change
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = parse_json((file.metadata() or {}).get(_METADATA, "{}"))
        if not isinstance(metadata, dict):
            raise ValueError("its metadata are no JSON object")
    except (SafetensorError, OSError, ValueError) as error:
        raise damage_error("weights", path, str(error)) from None
    return tensors, metadata


def read_table(path: Path, what: str, *, columns: Sequence[str] | None = None, advice: str = "") -> pa.Table:
    """Reads a parquet file, and checks the checksums of pages that carry them.

    Args:
        path: the file.
        what: what it is, such as "episode table", for messages.
        columns: those to read; None reads all.
        advice: what to do about damage; to make it again, if not given.

    Raises:
        ArtifactError: it is missing or damaged, lacks a column, or holds more than `MAX_TABLE_VALUES`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise ArtifactError(f"{path}: missing {what}; {advice or advise_again(path)}")
    try:
        with open_file(path) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            found, wanted = file.metadata, file.schema_arrow.names if columns is None else columns
            if lacking := [name for name in wanted if name not in file.schema_arrow.names]:
                raise ValueError(f"it lacks the column {lacking[0]}")
            groups = [found.row_group(i) for i in range(found.num_row_groups)]
            values = [
                column.num_values
                for group in groups
                for column in map(group.column, range(group.num_columns))
                if column.path_in_schema.startswith(tuple(wanted))
            ]
            rows = [group.num_rows for group in groups]
            if min((0, *rows, *values)) < 0 or sum(values) > MAX_TABLE_VALUES or sum(rows) > MAX_TABLE_VALUES:
                raise ValueError(f"holds {sum(rows)} rows of {sum(values)} values, at most {MAX_TABLE_VALUES} are read")
            return file.read(columns=columns)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = advice or f"delete it and {advise_again(path)}"
        raise ArtifactError(f"{path}: damaged {what} ({reason}); {advice}") from None
