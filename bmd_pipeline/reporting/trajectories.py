"""Paths of a few evaluation episodes in the plane: `trajectories.parquet`, and packed for the replay in the page."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import advise_again, parse_json, read_table
from bmd_pipeline.metrics.episodes import Episodes

NUM_POINTS = 64
"""Points kept of each path: enough to draw, 0.5 kB an episode."""

_METADATA_KEY = b"bmd_pipeline"
_COLUMNS = {
    "policy": pa.string(),
    "seed": pa.int64(),
    "code": pa.int64(),
    "mode": pa.string(),
    "success": pa.bool_(),
    "x": pa.list_(pa.float32()),
    "y": pa.list_(pa.float32()),
}


@dataclass(frozen=True)
class PlanarPath:
    """One episode."""

    policy: str  # who played it
    seed: int  # training seed
    code: int  # mode code that commanded it; 0 for policies without codes
    mode: str | None  # true mode, None for a failure that was still undecided
    success: bool
    xy: NDArray[np.float32]  # (NUM_POINTS, 2), evenly spaced in time


@dataclass(frozen=True)
class PathBook:
    """Paths of one or several policies on one task."""

    axes: tuple[str, str]  # names of the two coordinates
    labelling: str  # name of the mode labelling
    modes: tuple[str, ...]  # all modes of the task, in its order
    paths: list[PlanarPath]

    @property
    def to_scale(self) -> bool:
        """Whether both axes have one unit, as a floor plan has; angles against metres have not."""
        units = [axis.partition("(")[2] for axis in self.axes]
        return units[0] == units[1]


def encode_paths(book: PathBook) -> bytes:
    """Parquet file with one row per episode."""
    metadata = {"axes": book.axes, "labelling": book.labelling, "modes": book.modes}
    columns = {name: [getattr(path, name) for path in book.paths] for name in list(_COLUMNS)[:5]}
    columns |= {name: [path.xy[:, axis] for path in book.paths] for axis, name in enumerate("xy")}
    table = pa.table({name: pa.array(columns[name], kind) for name, kind in _COLUMNS.items()})
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def load_paths(path: Path) -> PathBook:
    """Reads `trajectories.parquet`.

    Raises:
        ArtifactError: the file is missing, damaged or holds something else.
    """
    table = read_table(path, "trajectories")
    try:
        metadata = parse_json(table.schema.metadata[_METADATA_KEY])
        return PathBook(
            axes=(metadata["axes"][0], metadata["axes"][1]),
            labelling=metadata["labelling"],
            modes=tuple(metadata["modes"]),
            paths=[_read_path(row, metadata["modes"]) for row in table.select(list(_COLUMNS)).to_pylist()],
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"{path}: damaged trajectories ({reason}); delete it and {advise_again(path)}") from error


def _read_path(row: dict[str, Any], modes: Sequence[str]) -> PlanarPath:
    """One row of the table; a `ValueError` if it is none that `encode_paths` writes."""
    xy = np.array([row.pop("x"), row.pop("y")], np.float32).T
    kinds = {"policy": str, "seed": int, "code": int, "mode": str | None, "success": bool}
    wrong = [name for name, kind in kinds.items() if not isinstance(row[name], kind)]
    if wrong or xy.ndim != 2 or len(xy) < 2 or not np.isfinite(xy).all() or row["mode"] not in (*modes, None):
        raise ValueError(f"a row holds no {', '.join(wrong) or 'path'}")
    return PlanarPath(**row, xy=xy)


def merge_books(books: Sequence[PathBook]) -> PathBook:
    """All paths in one book; the books must be of one task."""
    return replace(books[0], paths=[path for book in books for path in book.paths])


# ---- Planar paths packed for the page: 16-bit coordinates in base64 beside plain columns ----

MAX_BYTES = 3_000_000
"""Bytes of coordinates that a page carries before base64, which adds a third."""

_LEVELS = 65535


def encode_planar(
    paths: Mapping[tuple[str, int], Sequence[PlanarPath]],
    episodes: Mapping[tuple[str, int], Episodes],
    modes: Sequence[str],
) -> dict[str, Any]:
    """Packs the paths of all policies and seeds; each keeps its first ones where they would make the page too large.

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
    place: dict[str | None, int] = {None: -1, **{mode: i for i, mode in enumerate(modes)}}
    return {
        "groups": [
            {"policy": policy, "seed": seed, "count": len(group), "recorded": len(episodes[policy, seed])}
            for (policy, seed), group in kept.items()
        ],
        "points": NUM_POINTS,
        "low": low.tolist(),
        "high": high.tolist(),
        "code": [path.code for path in chosen],
        "mode": [place[path.mode] for path in chosen],
        "success": [int(path.success) for path in chosen],
        "length": [int(steps) for key, group in kept.items() for steps in episodes[key].length[: len(group)]],
        "xy": base64.b64encode(levels.tobytes()).decode(),
    }
