"""Small files in the published layouts of other projects, built without their libraries."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Pair = tuple[Rows, Rows]
"""Observations (T, obs_dim) and actions (T, action_dim) of an episode."""


def draw_episodes(obs_dim: int = 2, action_dim: int = 2, lengths: Sequence[int] = (4, 2, 3)) -> list[Pair]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(n, obs_dim)).astype(np.float32), rng.uniform(-1, 1, (n, action_dim)).astype(np.float32))
        for n in lengths
    ]


def _join(episodes: Sequence[Pair]) -> tuple[Rows, Rows, NDArray[np.int64]]:
    obs, action = (np.concatenate([pair[i] for pair in episodes]) for i in (0, 1))
    return obs, action, np.cumsum([len(pair[1]) for pair in episodes])


def write_zarr(folder: Path, episodes: Sequence[Pair], zarr_format: Literal[2, 3] = 2, name: str = "state") -> Path:
    """Diffusion policy's, with pictures beside the state."""
    obs, action, ends = _join(episodes)
    group = zarr.open_group(folder / "mine.zarr", mode="w", zarr_format=zarr_format)
    for path, values in ((f"data/{name}", obs), ("data/action", action)):
        group.create_array(path, data=values, chunks=(5, values.shape[1]))
    images = np.zeros((len(obs), 4, 4, 3), np.uint8)
    group.create_array("data/img", data=images, chunks=images.shape, config={"write_empty_chunks": True})
    group.create_array("meta/episode_ends", data=ends)
    return folder / "mine.zarr"


def write_zip(folder: Path, episodes: Sequence[Pair], top: str = "") -> Path:
    store, path = write_zarr(folder, episodes), folder / "mine.zarr.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                archive.write(file, top + str(file.relative_to(store)))
    return path


def write_lerobot(folder: Path, episodes: Sequence[Pair], version: str = "v3.0", **info: Any) -> Path:
    def make(index: int, obs: Rows, action: Rows) -> pa.Table:
        steps = len(action)
        vectors = {"observation.state": obs, "action": action}
        columns = {name: pa.array(values.tolist(), pa.list_(pa.float32())) for name, values in vectors.items()}
        columns |= {"frame_index": pa.array(range(steps)), "episode_index": pa.array([index] * steps)}
        return pa.table(columns)

    root, tables = folder / "dataset", [make(i, *pair) for i, pair in enumerate(episodes)]
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta").mkdir()
    if version.startswith("v3"):
        pq.write_table(pa.concat_tables(tables[:2]), root / "data/chunk-000/file-000.parquet")
        if tables[2:]:
            pq.write_table(pa.concat_tables(tables[2:]), root / "data/chunk-000/file-001.parquet")
    else:
        for i, table in enumerate(tables):
            pq.write_table(table, root / f"data/chunk-000/episode_{i:06d}.parquet")
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [pair.shape[1]], "names": None}
        for name, pair in zip(("observation.state", "action"), episodes[0], strict=True)
    }
    features["observation.images.top"] = {"dtype": "video", "shape": [3, 4, 4], "names": None}
    features |= {name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index")}
    told = {"total_episodes": len(tables), "total_frames": sum(map(len, tables)), "features": features}
    (root / "meta/info.json").write_text(json.dumps({"codebase_version": version, **told, **info}))
    return root


def write_robomimic(folder: Path, episodes: Sequence[Pair]) -> Path:
    """The state in two arrays, and pictures; episodes named out of order."""
    with h5py.File(folder / "demo.hdf5", "w") as file:
        for i, (obs, action) in enumerate(episodes):
            demo = file.create_group(f"data/demo_{9 + i}")  # demo_10 comes before demo_9 by name
            demo.create_dataset("actions", data=action, compression="gzip")
            demo["obs/left"], demo["obs/right"] = obs[:, :1], obs[:, 1:]
            demo["obs/image"] = np.zeros((len(obs), 4, 4, 3), np.uint8)
    return folder / "demo.hdf5"


def write_maniskill(folder: Path, episodes: Sequence[Pair], success: Sequence[bool] = ()) -> Path:
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for i, (obs, action) in enumerate(episodes):
            group = file.create_group(f"traj_{i}")
            group["obs"], group["actions"] = np.concatenate([obs, obs[-1:] + 1]), action
            if success:
                group["success"] = np.array([False] * (len(action) - 1) + [success[i]])
    return folder / "trajectory.h5"


def write_minari(folder: Path, episodes: Sequence[Pair], low: float = -1.0, high: float = 1.0) -> Path:
    data = folder / "mine-v0" / "data"
    data.mkdir(parents=True)
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for i, (obs, action) in enumerate(episodes):
            group = file.create_group(f"episode_{i}")
            group["observations"], group["actions"] = np.concatenate([obs, obs[-1:] + 1]), action
    dim = episodes[0][1].shape[1]
    space = {"type": "Box", "dtype": "float32", "shape": [dim], "low": [low] * dim, "high": [high] * dim}
    (data / "metadata.json").write_text(json.dumps({"data_format": "hdf5", "action_space": json.dumps(space)}))
    return data.parent


LAYOUTS: dict[str, Callable[[Path, Sequence[Pair]], Path]] = {
    "zarr v2": write_zarr,
    "zarr v3": lambda folder, episodes: write_zarr(folder, episodes, 3, "obs"),
    "zip": write_zip,
    "zip of a folder": lambda folder, episodes: write_zip(folder, episodes, "mine.zarr/"),
    "LeRobot v2.1": lambda folder, episodes: write_lerobot(folder, episodes, "v2.1"),
    "LeRobot v3.0": write_lerobot,
    "robomimic": write_robomimic,
    "ManiSkill": write_maniskill,
    "Minari": write_minari,
}
