"""Planar paths packed for the page: 16-bit coordinates in base64 beside plain columns."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.reporting.trajectories import NUM_POINTS, PlanarPath

MAX_BYTES = 3_000_000
"""Bytes of coordinates that a page carries before base64, which adds a third."""

_LEVELS = 65535


def encode_planar(
    paths: Mapping[tuple[str, int], Sequence[PlanarPath]],
    episodes: Mapping[tuple[str, int], Episodes],
    modes: Sequence[str],
) -> dict[str, Any]:
    """Packs the paths of all policies and seeds.

    Where they would make the page too large, each policy and seed keeps its first ones.

    Args:
        paths: by policy and seed, the first of its episodes.
        episodes: their rows, for their lengths.
        modes: all modes of the task, in its order.

    Returns:
        JSON values: `groups` of (policy, seed, count, recorded), and per path its code, mode (-1: undecided), success
        and length in control steps; `xy` holds NUM_POINTS little-endian uint16 pairs per path, 0 to 65535 between
        `low` and `high`.
    """
    limit = max(1, MAX_BYTES // (4 * NUM_POINTS * len(paths)))
    kept = {key: list(group)[:limit] for key, group in paths.items()}
    chosen = [path for group in kept.values() for path in group]
    points = np.stack([path.xy for path in chosen]).astype(np.float64)  # (num_paths, NUM_POINTS, 2)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    levels = np.rint((points - low) / np.maximum(high - low, 1e-12) * _LEVELS).astype("<u2")
    place = {mode: i for i, mode in enumerate(modes)}
    return {
        "groups": [
            {"policy": policy, "seed": seed, "count": len(group), "recorded": len(episodes[policy, seed])}
            for (policy, seed), group in kept.items()
        ],
        "points": NUM_POINTS,
        "low": low.tolist(),
        "high": high.tolist(),
        "code": [path.code for path in chosen],
        "mode": [-1 if path.mode is None else place[path.mode] for path in chosen],
        "success": [int(path.success) for path in chosen],
        "length": [int(steps) for key, group in kept.items() for steps in episodes[key].length[: len(group)]],
        "xy": base64.b64encode(levels.tobytes()).decode(),
    }
