"""The demonstration store: a zarr group in the layout that the field's diffusion policies use.

```
demos.zarr                    attributes: schema_version, action_low, action_high, task, config_hash, seed, …
├── data/obs                  (T, obs_dim) float32, all episodes one after the other
├── data/action               (T, action_dim) float32, in the environment's units
└── meta/episode_ends         (E,) int64, row after the last one of each episode
```

`action_low` and `action_high` (action_dim,) are the bounds of actions in the environment. In memory actions are in
[-1, 1], as policies act.

We write zarr v3, chunks with a checksum. Stores of others, v2 too, open as they are; `data/state` stands in for
`data/obs` there.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from bmd_pipeline.demos.arrays import FolderFiles, opened, read_array
from bmd_pipeline.environments.base import Episode, from_bounds
from bmd_pipeline.errors import DataError
from bmd_pipeline.io.files import staged_directory
from bmd_pipeline.io.layout import STORE_MARKS

SCHEMA_VERSION = 1
CHUNK_ROWS = 65_536
"""Rows of a chunk: stores are loaded whole, so that large chunks read fastest."""
TOLERANCE = 1e-6
"""Rounding by which an action may lie outside its bounds, in units of [-1, 1]."""
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Demos:
    """Demonstrations in memory."""

    obs: Rows  # (T, obs_dim)
    action: Rows  # (T, action_dim) in [-1, 1], which stand for the bounds
    episode_ends: NDArray[np.int64]  # (E,), rising; the last one is T
    attributes: Mapping[str, Any]  # what the store says of itself; empty for stores of others
    action_low: tuple[float, ...] = ()  # bounds (action_dim,) in the environment's units; none given means -1
    action_high: tuple[float, ...] = ()  # likewise; none given means 1
    clipped_share: float = 0.0  # of the stored actions' values that lay outside and were moved to the nearest bound

    @property
    def num_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    @property
    def episode_starts(self) -> NDArray[np.int64]:
        """(E,) first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.episode_ends[:-1]])


class DemoWriter:
    """Writes a store episode by episode; it takes its place at `path` when the `with` block succeeds.

    What `load_demos` would refuse is refused here, with a DataError: bounds that are none at once, the rest when it is
    appended or at the end.

    Args:
        path: the store.
        obs_dim: size of one observation.
        action_dim: size of one action.
        attributes: what the store says of itself, as JSON values.
        action_low: bounds (action_dim,) of actions in the environment, in the units in which they are written; None
            writes none, and readers go by the data.
        action_high: likewise.
        chunk_rows: rows per chunk; whole chunks are written as soon as they are full.
    """

    def __init__(
        self,
        path: Path,
        obs_dim: int,
        action_dim: int,
        attributes: Mapping[str, Any],
        *,
        action_low: Sequence[float] | None = None,
        action_high: Sequence[float] | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.path = path
        self.num_rows = 0
        self.episode_ends: list[int] = []
        self._dims = {"obs": obs_dim, "action": action_dim}
        bounds = {"action_low": action_low, "action_high": action_high}
        given = {name: list(map(float, values)) for name, values in bounds.items() if values is not None}
        self._attributes = {"schema_version": SCHEMA_VERSION, **given, **attributes}
        find_bounds(self._attributes, np.zeros((1, action_dim), np.float32), path)
        self._chunk_rows = chunk_rows
        self._pending: dict[str, list[Rows]] = {name: [] for name in self._dims}
        self._num_written = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        require_replaceable(self.path)
        with ExitStack() as stack:  # what fails in here still cleans up
            folder = self._folder = stack.enter_context(staged_directory(self.path))
            self._group = zarr.open_group(folder, mode="w", zarr_format=3, attributes=self._attributes)
            self._arrays = {
                name: self._group.create_array(
                    f"data/{name}",
                    shape=(0, dim),
                    chunks=(self._chunk_rows, dim),
                    dtype="float32",
                    compressors=Crc32cCodec(),  # no compression; tells a flipped bit from an edit
                    fill_value=np.nan,  # marks what was never written: a missing chunk file can't pass for data
                )
                for name, dim in self._dims.items()
            }
            self._stack = stack.pop_all()
        return self

    def append(self, episode: Episode) -> None:
        """Adds one episode.

        Raises:
            DataError: it is empty, has the wrong shape, or holds a value that is not finite.
        """
        which = f"episode {len(self.episode_ends)}"
        values = {"obs": _to_float32(episode.obs, which), "action": _to_float32(episode.action, which)}
        if not 0 < len(episode.obs) == len(episode.action):
            raise DataError(
                f"{which}: obs and action must have the same number of rows (>= 1), "
                f"got {len(episode.obs)} and {len(episode.action)}"
            )
        for name, rows in values.items():
            if rows.shape[1:] != (self._dims[name],):
                raise DataError(f"{which}: {name} must be (T, {self._dims[name]}), got {rows.shape}")
            _require_finite(rows, f"{which}: {name}")
        for name, rows in values.items():
            self._pending[name].append(rows)
        self.num_rows += len(episode.obs)
        self.episode_ends.append(self.num_rows)
        pending = self.num_rows - self._num_written
        if pending >= self._chunk_rows:
            self._flush(pending - pending % self._chunk_rows)

    def set_attributes(self, **attributes: Any) -> None:
        """Adds what is known only once all episodes are in."""
        self._group.attrs.update(attributes)

    def __exit__(self, kind: type[BaseException] | None, *failure: Any) -> None:
        # The exit stack renames the folder into place, or removes it if the block or the last writes failed.
        with self._stack:
            if kind is not None:
                self._stack.pop_all().__exit__(kind, *failure)
                return
            self._flush(self.num_rows - self._num_written)
            ends = np.asarray(self.episode_ends, np.int64)
            self._group.create_array("meta/episode_ends", data=ends, fill_value=-1, compressors=Crc32cCodec())
            try:
                load_demos(self._folder)
            except DataError as error:  # the folder goes, so that its name would say nothing
                raise DataError(str(error).replace(str(self._folder), str(self.path))) from None

    def _flush(self, count: int) -> None:
        """Writes the first `count` pending rows and keeps the rest."""
        if count == 0:
            return
        for name, parts in self._pending.items():
            rows = np.concatenate(parts)
            self._arrays[name].append(rows[:count])
            self._pending[name] = [rows[count:]]
        self._num_written += count


def _to_float32(values: Any, what: str) -> Rows:
    """Numbers as the store holds them; too large ones are infinite there."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(values).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: obs and action must be arrays of numbers ({error})") from None


def require_replaceable(path: Path) -> None:
    """Raises `DataError` if a folder of something else than demonstrations would be lost where a store is written."""
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in STORE_MARKS):
        raise DataError(f"{path} holds something else than demonstrations, which would be lost; name another --output")


def load_demos(path: Path, *, obs_dim: int | None = None, action_dim: int | None = None) -> Demos:
    """Reads a store into memory and checks it.

    The bounds of actions are those that the store gives. Where it gives none they are -1 and 1 if the data lie inside,
    else the least and the largest value of each component. Observations and actions must be of the sizes given.

    Raises:
        DataError: it is missing, truncated, of a foreign schema version or of other sizes, it lacks a chunk, holds
            something else than files and folders or needs a codec that is not decoded, its episodes don't add up,
            a value is not finite (the first such index is named), or its bounds are no bounds.
    """
    if not path.is_dir():
        raise DataError(f"no demonstrations at {path}")
    files = FolderFiles(path)
    with opened(files, "restore it from a copy, or move it away and collect or import others") as group:
        attributes = dict(group.attrs)
        version = attributes.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise DataError(f"{path} has schema version {version}, this release reads {SCHEMA_VERSION}")
        obs_name = "state" if (path / "data/state").exists() and not (path / "data/obs").exists() else "obs"
        obs, action, ends = (
            read_array(group, files, name) for name in (f"data/{obs_name}", "data/action", "meta/episode_ends")
        )
    for name, array, wanted in ((obs_name, obs, obs_dim), ("action", action, action_dim)):
        if array.ndim != 2 or array.dtype.kind != "f":
            raise DataError(f"{path}: data/{name} must be floats (T, dim), got {array.dtype} {array.shape}")
        if wanted is not None and array.shape[1] != wanted:
            raise DataError(f"{path}: data/{name} has dimension {array.shape[1]}, the task has {wanted}")
    check_ends(ends, len(obs), len(action), path)
    with np.errstate(over="ignore"):  # what is too large for them is infinite, and refused as such
        obs, action = obs.astype(np.float32, copy=False), action.astype(np.float32, copy=False)
    _require_finite(obs, f"{path}: data/{obs_name}")
    _require_finite(action, f"{path}: data/action")
    low, high = find_bounds(attributes, action, path)
    scaled = from_bounds(action, low, high)
    clipped = float((np.abs(scaled) > 1.0 + TOLERANCE).mean())
    action = scaled.clip(-1.0, 1.0).astype(np.float32)
    ends = ends.astype(np.int64, copy=False)
    return Demos(obs, action, ends, attributes, tuple(low.tolist()), tuple(high.tolist()), clipped)


def find_bounds(
    attributes: Mapping[str, Any], action: Rows, path: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds (action_dim,) of a store's actions."""
    dim = action.shape[1]
    given = [attributes.get(name) for name in ("action_low", "action_high")]
    if given == [None, None]:
        if np.abs(action).max() <= 1.0 + TOLERANCE:
            return -np.ones(dim), np.ones(dim)
        low, high = action.min(axis=0).astype(np.float64), action.max(axis=0).astype(np.float64)
        constant = low == high  # one width is as good as another
        return np.where(constant, low - 1.0, low), np.where(constant, high + 1.0, high)
    try:
        low, high = (np.array(values, np.float64) for values in given)
    except (TypeError, ValueError):
        low = high = np.zeros(0)
    if low.shape != (dim,) or high.shape != (dim,) or not (np.isfinite([low, high]).all() and (low < high).all()):
        raise DataError(
            f"{path}: action_low and action_high must be {dim} finite numbers each, the first below the second, "
            f"got {given[0]} and {given[1]}"
        )
    return low, high


def check_ends(ends: NDArray[Any], obs_rows: int, action_rows: int, path: Path) -> None:
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0:
        raise DataError(f"{path}: meta/episode_ends must be integers (E,), E >= 1, got {ends.dtype} {ends.shape}")
    falling = np.flatnonzero(np.diff(ends.astype(np.int64), prepend=0) <= 0)
    if len(falling):
        i = int(falling[0])
        before = int(ends[i - 1]) if i else 0
        raise DataError(f"{path}: meta/episode_ends must rise from above 0, entry {i} is {ends[i]} after {before}")
    if not int(ends[-1]) == obs_rows == action_rows:
        raise DataError(
            f"{path} is truncated or inconsistent: episodes end at row {ends[-1]}, "
            f"but there are {obs_rows} observations and {action_rows} actions"
        )


def _require_finite(rows: NDArray[Any], what: str) -> None:
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(f"{what} has {bad.sum()} values that are not finite, the first at [{row}, {column}]")
