"""Tensors on disk, as safetensors: reading one can execute nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bmd_pipeline.artifacts.atomic import write_bytes
from bmd_pipeline.errors import ArtifactError

_METADATA = "metadata"


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes named tensors whole; the same tensors and metadata give the same bytes.

    Args:
        path: the file.
        tensors: tensors on any device.
        metadata: a few strings to store beside them.
    """
    # safetensors writes several metadata keys in arbitrary order: one key keeps the bytes reproducible.
    packed = {_METADATA: json.dumps(metadata, sort_keys=True)} if metadata else None
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(content, packed))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads all tensors of a file, on the CPU; they can be computed with.

    Raises:
        ArtifactError: the file is missing or damaged, or holds a value that is not finite.
    """
    tensors = read_weights(path)[0]
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"weights: {path}: {name} is not finite; make the file again")
    return tensors


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors and the metadata of a file.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    if not path.is_file():
        raise ArtifactError(f"weights: {path} is missing")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # clone: the tensors of an open file are views of its mapped pages, which a rewrite would change
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"weights: {path} is damaged ({reason}); delete it and make it again") from None
    return tensors, metadata
