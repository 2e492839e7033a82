"""Content hashes of files and folders."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(directory: Path) -> str:
    """SHA-256 over the relative names and contents of all files below a folder, in any order."""
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
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
