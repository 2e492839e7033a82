"""Arrays of a zarr store, in a folder or in a zip file, read without trusting it.

Before an array is decoded its metadata must name known codecs and a size that fits: a codec may run code, and a few
bytes may unfold into gigabytes. Consolidated metadata is a copy that nobody keeps up to date: unread. Every chunk must
be stored: zarr would read a lost one as zeros. A zip file is read where it is, and never extracted.
"""

import itertools
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from bmd_pipeline.errors import DataError
from bmd_pipeline.io.files import MAX_DOCUMENT_BYTES, open_file, parse_json, read_json
from bmd_pipeline.io.layout import STORE_MARKS

CODECS = (
    *("bytes", "transpose", "sharding_indexed", "shuffle", "delta"),
    *("blosc", "zstd", "zlib", "gzip", "bz2", "lzma", "lz4", "crc32", "crc32c", "adler32", "fletcher32"),
)
"""Codecs of arrays that are decoded: they move, pack or check bytes and can do nothing else."""
_PLACES = ("codecs", "compressor", "filters")
"""Where metadata name codecs, of format 3 and 2."""
SMALL_BYTES, LARGEST_RATIO = 2**30, 1000
"""Arrays may unfold to so many bytes, or to so many times the bytes of the file or store that they are in."""


def largest_bytes(stored: int) -> int:
    """Bytes to which what takes `stored` bytes on disk may unfold."""
    return max(SMALL_BYTES, LARGEST_RATIO * stored)


# ---- The files of a store ----


class StoreFiles(ABC):
    """The files of a zarr store, by their names in it."""

    path: Path  # the store
    stored: int  # bytes of all its files

    @abstractmethod
    def open(self) -> zarr.Group:
        """The store's group, whose arrays are to be read by `read_array`."""

    @abstractmethod
    def close(self) -> None:
        """Ends what `open` began."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none of this name."""

    @abstractmethod
    def count(self, folder: str) -> int:
        """Number of files in a folder, and in those below it."""

    @abstractmethod
    def list_folders(self, folder: str) -> list[str]:
        """Names of the folders right inside of a folder, sorted."""

    @abstractmethod
    def read_start(self, name: str, num_bytes: int) -> bytes:
        """The first bytes of a file."""

    @abstractmethod
    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object."""

    @abstractmethod
    def where(self, name: str) -> str:
        """What messages call a file."""


class FolderFiles(StoreFiles):
    """Those of a store that is a folder.

    Raises:
        DataError: it holds a pipe or a device, which would be waited for, a link to a folder, which would be read and
            belong to no hash, or metadata of two formats, which may differ.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored = 0
        for entry in path.rglob("*"):
            if entry.is_file():
                self.stored += entry.stat().st_size
            elif entry.is_symlink() or not entry.is_dir():
                raise DataError(f"{entry} is neither a file nor a folder of the store itself: take it away")
            if entry.name in (".zarray", ".zgroup") and entry.with_name("zarr.json").exists():
                raise DataError(f"{entry} and zarr.json beside it are metadata of two formats: remove the older")

    def open(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r", use_consolidated=False)

    def close(self) -> None:
        pass

    def size(self, name: str) -> int | None:
        file = self.path / name
        return file.stat().st_size if file.is_file() else None

    def count(self, folder: str) -> int:
        return sum(entry.is_file() for entry in (self.path / folder).rglob("*"))

    def list_folders(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in (self.path / folder).glob("*") if entry.is_dir())

    def read_start(self, name: str, num_bytes: int) -> bytes:
        with open_file(self.path / name) as file:
            return file.read(num_bytes)

    def read_json(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name, "array")

    def where(self, name: str) -> str:
        return str(self.path / name)


class ZippedFiles(StoreFiles):
    """Those of a store that is a zip file, at its top or in the one folder that it holds.

    Raises:
        DataError: it is no zip file, or holds no zarr store; a name leads elsewhere or is there twice, a file is
            encrypted or packed in an unusual way, or all of them would unfold to too many bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_file(path) as file, zipfile.ZipFile(file) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
                self.stored = path.stat().st_size
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} can't be read as a zip file: {error}") from None
        self._infos = {info.filename: info for info in infos}
        for info in infos:
            place = PurePosixPath(info.filename)
            if place.is_absolute() or ".." in place.parts or "\\" in info.filename:
                raise DataError(f"{path}: the name {info.filename[:80]!r} in it leads elsewhere; zip the store again")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{path}: {info.filename[:80]} is encrypted, or neither stored nor deflated; zip it again"
                )
        if len(self._infos) < len(infos):
            raise DataError(f"{path} holds two files of one name; zip the store again")
        if (whole := sum(info.file_size for info in infos)) > largest_bytes(self.stored):
            raise DataError(f"{path} would unfold to {whole} bytes; at most {largest_bytes(self.stored)} are read")
        tops = {name.partition("/")[0] for name in self._infos if not name.startswith("__MACOSX/")}
        folders = ["", *(f"{top}/" for top in tops if len(tops) == 1)]
        found = [folder for folder in folders if any(f"{folder}{mark}" in self._infos for mark in STORE_MARKS)]
        if not found:
            raise DataError(f"{path} holds no zarr store, neither at its top nor in one folder")
        self._folder = found[0]
        for name in self._infos:
            start, _, last = name.rpartition("/")
            if last in (".zarray", ".zgroup") and (f"{start}/zarr.json" if start else "zarr.json") in self._infos:
                raise DataError(f"{path}: {name} and zarr.json beside it are metadata of two formats: remove the older")

    def open(self) -> zarr.Group:
        self._store, self._archive = ZipStore(self.path, mode="r"), zipfile.ZipFile(open_file(self.path))
        return zarr.open_group(self._store, path=self._folder.rstrip("/"), mode="r", use_consolidated=False)

    def close(self) -> None:
        self._store.close()
        self._archive.close()

    def size(self, name: str) -> int | None:
        info = self._infos.get(self._folder + name)
        return None if info is None else info.file_size

    def count(self, folder: str) -> int:
        return sum(name.startswith(f"{self._folder}{folder}/") for name in self._infos)

    def list_folders(self, folder: str) -> list[str]:
        start = f"{self._folder}{folder}/"
        inside = [name.removeprefix(start) for name in self._infos if name.startswith(start)]
        return sorted({name.partition("/")[0] for name in inside if "/" in name})

    def read_start(self, name: str, num_bytes: int) -> bytes:
        with self._archive.open(self._folder + name) as entry:
            return entry.read(num_bytes)

    def read_json(self, name: str) -> dict[str, Any]:
        document = parse_json(self.read_start(name, MAX_DOCUMENT_BYTES))
        if not isinstance(document, dict):
            raise DataError(f"{self.where(name)} must hold a JSON object")
        return document

    def where(self, name: str) -> str:
        return f"{self.path}: {self._folder}{name}"


@contextmanager
def opened(files: StoreFiles, advice: str) -> Iterator[zarr.Group]:
    """The store's group. What zarr raises about damage in the block is a `DataError` that ends in the advice."""
    try:
        group = files.open()
        try:
            yield group
        finally:
            files.close()
    except DataError:
        raise
    except Exception as error:  # zarr reports damage by whatever its storage and codecs raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{files.path} can't be read as a zarr store: {reason}; {advice}") from None


# ---- Their arrays ----


def list_arrays(files: StoreFiles, folder: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shapes and types of the arrays of numbers in a folder of the store, by name, as their metadata say."""
    found = {}
    for name in (f"{folder}/{last}" for last in files.list_folders(folder)):
        for metadata, kind in ((f"{name}/zarr.json", "data_type"), (f"{name}/.zarray", "dtype")):
            if files.size(metadata) is not None:
                said = files.read_json(metadata)
                with suppress(KeyError, TypeError, ValueError):  # a group, or of a type that is no number's
                    shape, dtype = tuple(map(int, said["shape"])), np.dtype(str(said[kind]))
                    if dtype.kind in "biuf":
                        found[name] = (shape, dtype)
    return found


def read_array(group: zarr.Group, files: StoreFiles, name: str) -> NDArray[Any]:
    """An array of numbers of a store.

    Raises:
        DataError: it is missing, lacks a chunk, holds something else than numbers, needs a codec that is none of
            `CODECS`, or would unfold to too many bytes.
    """
    uses_blosc = False
    for metadata in (f"{name}/zarr.json", f"{name}/.zarray"):
        if files.size(metadata) is not None:
            uses_blosc = _require_codecs(files, metadata)
    node = group.get(name)
    if not isinstance(node, zarr.Array):
        raise DataError(f"{files.path}: array {name} is missing")
    if node.dtype.kind not in "biufc":
        raise DataError(f"{files.path}: {name} must hold numbers, got {node.dtype}")
    largest = largest_bytes(files.stored)
    needed = max(math.prod(shape) for shape in (node.shape, node.shards or node.chunks)) * node.dtype.itemsize
    if needed > largest:
        raise DataError(
            f"{files.path}: {name} would unfold to {needed} bytes from {files.stored}; at most {largest} are read"
        )
    for chunk in _list_chunks(node, files, name):
        if uses_blosc:
            _require_whole(files, chunk)
    return np.asarray(node[:])


def _list_chunks(array: zarr.Array[Any], files: StoreFiles, name: str) -> Iterator[str]:
    """Names of all chunks of an array, or of all its shards; `DataError` if one is missing."""
    advice = "restore it from a copy, or write the array again with every chunk (zarr's write_empty_chunks)"
    counts = [-(-size // chunk) for size, chunk in zip(array.shape, array.shards or array.chunks, strict=True)]
    stored = files.count(name)
    if math.prod(counts) > stored:  # before they are gone through, which may be many more than there are files
        raise DataError(f"{files.where(name)} holds {stored} files and must have {math.prod(counts)} chunks; {advice}")
    for index in itertools.product(*map(range, counts)):
        chunk = f"{name}/{array.metadata.encode_chunk_key(index)}"
        if files.size(chunk) is None:
            raise DataError(f"{files.where(chunk)} is missing, a chunk of the array; {advice}")
        yield chunk


def _require_whole(files: StoreFiles, chunk: str) -> None:
    """Checks that blosc's header tells a chunk's size: its decoder believes the header, and reads beyond the file."""
    header, size = files.read_start(chunk, 16), files.size(chunk)
    told = int.from_bytes(header[12:16], "little")
    if len(header) < 16 or told != size:
        raise DataError(
            f"{files.where(chunk)} is damaged: it has {size} bytes, and its header says {told}; restore it from a copy"
        )


def _require_codecs(files: StoreFiles, metadata: str) -> bool:
    """Checks the codecs that an array's metadata names; returns whether chunks are packed by blosc.

    Blosc must come last, so that what it unpacks is a file as it is.
    """
    found, where = files.read_json(metadata), files.where(metadata)
    codecs = [codec.removeprefix("numcodecs.") for codec in _list_codecs([found.get(name) for name in _PLACES])]
    for codec in codecs:
        if codec not in CODECS:
            raise DataError(
                f"{where}: codec {codec!r} is not decoded; write the array with others ({', '.join(CODECS)})"
            )
    outer = found.get("compressor") or (found.get("codecs") or [None])[-1]
    is_last = [codec.removeprefix("numcodecs.") for codec in _list_codecs([outer])] == ["blosc"]
    if codecs.count("blosc") > is_last:
        raise DataError(f"{where}: blosc is decoded as the last codec, outside of shards; write it with others")
    return is_last


def _list_codecs(value: Any) -> Iterator[str]:
    """Names of codecs, those inside of others too."""
    if isinstance(value, list):
        for part in value:
            yield from _list_codecs(part)
    elif isinstance(value, dict):
        yield from (str(value[key]) for key in ("name", "id") if key in value)  # of format 3 and 2
        inner = value.get("configuration")
        if isinstance(inner, dict):
            yield from _list_codecs([inner.get("codecs"), inner.get("index_codecs")])
    elif value is not None:
        yield str(value)
