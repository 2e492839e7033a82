"""Demonstrations written as other projects read them, with actions in the environment's units and their bounds."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from bmd_pipeline.demos.store import CHUNK_ROWS, Demos
from bmd_pipeline.environments.base import TaskSpec, to_bounds
from bmd_pipeline.io.files import write_json

LEROBOT_VERSION = "v3.0"
USUAL_HZ = 10
"""Steps per second of a task without a clock: LeRobot's frames have times."""
_TABLE = "chunk-000/file-000.parquet"
_QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)


def _list_bounds(demos: Demos) -> dict[str, list[float]]:
    return {"action_low": list(demos.action_low), "action_high": list(demos.action_high)}


def _restore_actions(demos: Demos) -> NDArray[np.float32]:
    """Actions (T, action_dim) in the environment's units."""
    low, high = np.array(demos.action_low), np.array(demos.action_high)
    return to_bounds(demos.action.astype(np.float64), low, high).astype(np.float32)


def write_zarr(demos: Demos, folder: Path, spec: TaskSpec) -> None:
    """Writes the layout of diffusion policy, zarr v2: `data/obs`, `data/action`, `meta/episode_ends`."""
    group = zarr.open_group(folder, mode="w", zarr_format=2, attributes={"task": spec.name, **_list_bounds(demos)})
    arrays: dict[str, NDArray[Any]] = {
        "data/obs": demos.obs,
        "data/action": _restore_actions(demos),
        "meta/episode_ends": demos.episode_ends,
    }
    for name, array in arrays.items():
        chunks = (min(CHUNK_ROWS, len(array)), *array.shape[1:])
        # without compression every version of zarr reads them; a chunk of zeros that is left out looks like a lost one
        group.create_array(name, data=array, chunks=chunks, compressors=None, config={"write_empty_chunks": True})


def write_lerobot(demos: Demos, folder: Path, spec: TaskSpec) -> None:
    """Writes a LeRobot dataset, version 3, whose observations are `observation.state`.

    Its info.json holds the bounds of actions too, as `action_low` and `action_high`.
    """
    hz = spec.control_hz or USUAL_HZ
    hz = int(hz) if hz == int(hz) else hz
    starts, ends = demos.episode_starts, demos.episode_ends
    lengths = ends - starts
    frame, episode = np.arange(len(demos.obs)) - np.repeat(starts, lengths), np.repeat(np.arange(len(ends)), lengths)
    last = np.zeros(len(demos.obs), np.bool_)
    last[ends - 1] = True
    columns: dict[str, NDArray[Any]] = {
        "observation.state": demos.obs,
        "action": _restore_actions(demos),
        "next.done": last,
        "timestamp": (frame / hz).astype(np.float32),
        "frame_index": frame,
        "episode_index": episode,
        "index": np.arange(len(demos.obs)),
        "task_index": np.zeros(len(demos.obs), np.int64),
    }
    features = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in columns.items()
    }
    _write_table(folder / "data" / _TABLE, pa.table({name: _to_arrow(values) for name, values in columns.items()}))
    numbered = np.zeros(len(ends), np.int64)  # all is in the first file
    episodes: dict[str, Any] = {
        "episode_index": np.arange(len(ends)),
        "tasks": [[spec.name]] * len(ends),
        "length": lengths,
        **{f"{place}/{kind}_index": numbered for place in ("data", "meta/episodes") for kind in ("chunk", "file")},
        "dataset_from_index": starts,
        "dataset_to_index": ends,
    }
    for name, values in columns.items():
        described = [_describe(values[start:end]) for start, end in zip(starts, ends, strict=True)]
        episodes |= {f"stats/{name}/{key}": [one[key] for one in described] for key in described[0]}
    _write_table(folder / "meta/episodes" / _TABLE, pa.table(episodes))
    _write_table(folder / "meta/tasks.parquet", _make_tasks(spec.name))
    write_json(folder / "meta/stats.json", {name: _describe(values) for name, values in columns.items()})
    info = {
        "codebase_version": LEROBOT_VERSION,
        "robot_type": None,
        "total_episodes": len(ends),
        "total_frames": len(demos.obs),
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": hz,
        "splits": {"train": f"0:{len(ends)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features,
        **_list_bounds(demos),
    }
    write_json(folder / "meta/info.json", info)


def _to_arrow(values: NDArray[Any]) -> pa.Array:
    """Numbers (T,), or lists of the same length (T, width); of one column the numbers themselves."""
    if values.ndim == 1 or values.shape[1] == 1:
        return pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _describe(values: NDArray[Any]) -> dict[str, list[float]]:
    """Statistics of each column, from which LeRobot's policies take their scales."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    numbers = {name: getattr(rows, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    quantiles = np.quantile(rows, _QUANTILES, axis=0).tolist()
    named = {f"q{round(100 * share):02d}": row for share, row in zip(_QUANTILES, quantiles, strict=True)}
    return {**numbers, "count": [len(rows)], **named}


def _make_tasks(task: str) -> pa.Table:
    """The table of tasks, which pandas reads with the task's name as its index."""
    table = pa.table({"task_index": [0], "task": [task]})
    kinds = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    metadata = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored, "metadata": None}
            for name, kind, stored in kinds
        ],
    }
    return table.replace_schema_metadata({"pandas": json.dumps(metadata)})


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy", write_page_checksum=True)


WRITERS: Final[Mapping[str, Callable[[Demos, Path, TaskSpec], None]]] = {"zarr": write_zarr, "lerobot": write_lerobot}
"""Writers of a format: of demonstrations of a task, into an empty folder."""
