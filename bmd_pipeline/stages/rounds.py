"""Played rounds of episodes as tensors, so that a checkpoint can hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.io.progress import take_prefix
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.rl.rollout import Rollout


def pack_rounds(rounds: Sequence[Rollout]) -> dict[str, Tensor]:
    """Tensors of rollouts by `<round>.<field>`; those of the record by `<round>.record.<name>`."""
    tensors: dict[str, Tensor] = {}
    for index, played in enumerate(rounds):
        for field in dataclasses.fields(played):
            value = getattr(played, field.name)
            parts = value if isinstance(value, dict) else {"": value}
            for name, part in parts.items():
                if isinstance(part, Tensor):  # rounds may share one, which a file of tensors can't
                    tensors[f"{index}.{field.name}.{name}".rstrip(".")] = part.clone()
    return tensors


def unpack_rounds(tensors: Mapping[str, Tensor], feature_columns: Sequence[int], device: torch.device) -> list[Rollout]:
    """Restores what `pack_rounds` took.

    Args:
        tensors: from `pack_rounds`.
        feature_columns: what the rollouts say of their track, which is no tensor.
        device: where to put them.
    """
    found: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, field, *name = key.split(".", 2)
        values = found.setdefault(int(index), {"record": {}, "feature_columns": tuple(feature_columns)})
        if name:
            values[field][name[0]] = tensor.to(device)
        else:
            values[field] = tensor.to(device)
    return [Rollout(**found[index]) for index in sorted(found)]


_ROWS = ("code", "success", "length", "episode_return", "information")


def pack_episodes(
    parts: Sequence[Episodes], paths: Sequence[NDArray[np.float32]], extra: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A snapshot of evaluated rounds.

    Args:
        parts: episodes of each round, of one policy.
        paths: their planar paths, (num_envs, points, 2) each.
        extra: tensors to store beside them.
    """
    tensors = dict(extra)
    for index, (part, path) in enumerate(zip(parts, paths, strict=True)):
        arrays = {name: getattr(part, name) for name in _ROWS} | {"path": path}
        arrays |= {f"weights.{name}": labelled.weights for name, labelled in part.labellings.items()}
        tensors |= {f"{index}.{name}": torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    values: dict[str, Any] = {"rounds": len(parts)}
    if parts:
        first = parts[0]
        values |= {name: getattr(first, name) for name in ("policy", "seed", "num_codes")}
        values["labellings"] = {name: list(labelled.modes) for name, labelled in first.labellings.items()}
    return tensors, values


def unpack_episodes(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> tuple[list[Episodes], list[NDArray[np.float32]]]:
    """Restores the rounds that `pack_episodes` took."""
    parts, paths = [], []
    for index in range(values["rounds"]):
        own: dict[str, Any] = {name: tensor.numpy() for name, tensor in take_prefix(str(index), tensors).items()}
        paths.append(own["path"])
        parts.append(
            Episodes(
                **{name: values[name] for name in ("policy", "seed", "num_codes")},
                **{name: own[name] for name in _ROWS},
                labellings={
                    name: ModeWeights(tuple(modes), own[f"weights.{name}"])
                    for name, modes in values["labellings"].items()
                },
            )
        )
    return parts, paths
