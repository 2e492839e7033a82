"""Demonstrations in the formats of other projects: recognised, read, and brought to a task's observations and bounds.

| format | observations | actions | episodes |
|---|---|---|---|
| zarr, of diffusion policy; a folder or a zip file | `data/obs`, `data/state` | `data/action` | `meta/episode_ends` |
| LeRobot, version 2 and 3 | `observation.state` | `action` | `episode_index` |
| robomimic | `obs/…` | `actions` | `data/demo_0`, … |
| ManiSkill | `obs` | `actions` | `traj_0`, … |
| Minari | `observations` | `actions` | `episode_0`, … |

No library of theirs is needed. Files are somebody's: only numbers are read, in sizes that fit the file, by filters that
only pack bytes, and nothing that a file leads to outside of itself.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bmd_pipeline.demos.arrays import FolderFiles, ZippedFiles, largest_bytes, list_arrays, opened, read_array
from bmd_pipeline.demos.store import TOLERANCE, check_ends, find_bounds
from bmd_pipeline.environments.base import Episode, TaskSpec, from_bounds, to_bounds
from bmd_pipeline.errors import ConfigError, DataError
from bmd_pipeline.io.files import open_file, parse_json, read_json, read_table
from bmd_pipeline.io.layout import STORE_MARKS

Rows = NDArray[np.float32]
Bounds = tuple[tuple[float, ...], tuple[float, ...]]
"""The lowest and the highest value of each component of an action."""


class Recorded(NamedTuple):
    """One episode of a file."""

    obs: Rows  # (T, obs_dim), what each action answers
    action: Rows  # (T, action_dim), in the file's units
    success: bool | None  # None where the file doesn't tell


@dataclass(frozen=True)
class Recording:
    """What a file holds."""

    path: Path
    format: str
    obs_keys: tuple[str, ...]  # what the observations are stacked of
    columns: tuple[str, ...]  # (obs_dim,) a name for each of their columns
    bounds: Bounds | None  # of actions, where the file tells them
    episodes: list[Recorded]


# ---- Which format a file is of, by what it holds ----

MAX_COLUMNS = 100_000
"""Of an observation; each has a name."""
_LEROBOT = Path("meta", "info.json")
_MINARI = ("data/main_data.hdf5", "main_data.hdf5")


def recognise(path: Path) -> str | None:
    """The kind of a file or folder, as far as its beginning tells; None if it is none that is read.

    Raises:
        ArtifactError: it is neither a folder nor a regular file.
    """
    if path.is_dir():
        if any((path / mark).is_file() for mark in STORE_MARKS):
            return "zarr"
        if (path / _LEROBOT).is_file():
            return "LeRobot"
        return "HDF5" if any((path / name).is_file() for name in _MINARI) else None
    if not path.exists():
        return None
    with open_file(path) as file:
        start = file.read(8)
    return "zipped zarr" if start.startswith(b"PK") else "HDF5" if start == b"\x89HDF\r\n\x1a\n" else None


def require_known(path: Path) -> str:
    """The kind of a file or folder that is read.

    Raises:
        DataError: nothing is there, or it is of no known format.
        ArtifactError: it is neither a folder nor a regular file.
    """
    if not path.exists():
        raise DataError(f"no demonstrations at {path}")
    if (found := recognise(path)) is None:
        raise DataError(
            f"{path} is of no format that is read: a zarr store or its zip file, the folder of a LeRobot or Minari "
            "dataset, or an HDF5 file of robomimic, ManiSkill or Minari"
        )
    return found


def read_recording(path: Path, obs: Sequence[str] = (), obs_dim: int | None = None) -> Recording:
    """Reads a file or folder of any of the formats into memory.

    Args:
        path: the file or folder.
        obs: arrays to stack as the observation; none takes what the format's own users take.
        obs_dim: size that an observation must have, if any.

    Raises:
        DataError: nothing is there, it is of no known format, damaged, or not safe to read; it lacks an array, or
            doesn't tell which ones are the observation; lengths or sizes don't fit, or a value is not finite.
    """
    readers: dict[str, Callable[[Path, Sequence[str], int | None], Recording]] = {
        "zarr": _read_zarr,
        "zipped zarr": _read_zarr,
        "LeRobot": _read_lerobot,
        "HDF5": _read_hdf5,
    }
    recording = readers[require_known(path)](path, obs, obs_dim)
    if not recording.episodes:
        raise DataError(f"{path} holds no episode")
    for index, episode in enumerate(recording.episodes):
        for name, rows in (("observation", episode.obs), ("action", episode.action)):
            for step, column in np.argwhere(~np.isfinite(rows))[:1].tolist():
                raise DataError(
                    f"{path}: {name} {rows[step, column]:g} in episode {index}, step {step}, column {column}: every "
                    "value must be finite"
                )
    return recording


class _Array(NamedTuple):
    """What is known of an array before it is read."""

    shape: tuple[int, ...]  # of one step
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether it holds pictures, one or several a step."""
        return (
            self.dtype in ("image", "video") or len(self.shape) > 2 or (len(self.shape) == 2 and self.dtype == "uint8")
        )

    def __str__(self) -> str:
        return "images" if self.is_image else "×".join(map(str, self.shape)) or "1"


def _choose(
    path: Path,
    asked: Sequence[str],
    usual: Sequence[tuple[str, ...]],
    found: Mapping[str, _Array],
    folder: str,
    obs_dim: int | None,
    remedy: str = "",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which arrays are the observation: those asked for, else the first of the usual choices that is there.

    An array may be named without the folder that all observations are in. The remedy is what to do about a file without
    states. Returns their names, and one for each column.
    """
    found = {name: array for name, array in found.items() if name.isprintable()}  # names are shown, and recorded
    listed = ", ".join(f"{name} ({array})" for name, array in list(found.items())[:20]) or "nothing of use"
    more = f", and {len(found) - 20} more" if len(found) > 20 else ""
    holds = f"--obs NAME[,NAME…] chooses; it holds {listed}{more}"
    if asked:
        keys = tuple(key if key in found else f"{folder}{key}" for key in asked)
    else:
        sound = [keys for keys in usual if all(key in found for key in keys)]
        alone = [(key,) for key, array in found.items() if not array.is_image]
        keys = next(iter([*sound, *(alone if len(alone) == 1 else [])]), ())
        if not alone:
            what = f"only {listed}{more}" if found else f"no numbers in {folder.rstrip('./')}"
            raise DataError(f"{path} holds no observations that are states, {what}{remedy and f': {remedy}'}")
        if not keys:
            raise DataError(f"{path} doesn't tell what the observation is: {holds}")
    for key, given in zip(keys, asked or keys, strict=True):
        if key not in found:
            raise DataError(f"{path} holds no {given!r}: {holds}")
        if found[key].is_image:
            raise DataError(f"{path}: {key} holds images, and observations are states here: {holds}")
    if len(set(keys)) < len(keys):
        raise DataError(f"{path}: --obs names an array twice, {', '.join(keys)}: {holds}")
    widths = {key: math.prod(found[key].shape) for key in keys}
    if sum(widths.values()) > MAX_COLUMNS:
        raise DataError(
            f"{path}: {', '.join(keys)} have {sum(widths.values())} columns, at most {MAX_COLUMNS} are read"
        )
    if obs_dim is not None and sum(widths.values()) != obs_dim:
        has = (
            f"have {sum(widths.values())} columns together" if len(keys) > 1 else f"has {sum(widths.values())} columns"
        )
        raise DataError(f"{path}: {', '.join(keys)} {has}, an observation of the task {obs_dim}: {holds}")
    return keys, tuple(f"{key}[{i}]" for key, width in widths.items() for i in range(width))


def _stack(
    path: Path, which: str, parts: Sequence[NDArray[Any]], action: NDArray[Any], *, one_more: bool
) -> list[Rows]:
    """Observations (T, obs_dim) of their arrays, and actions (T, action_dim).

    A file may hold `one_more` observation, the one after the last action.
    """
    steps = len(action) if action.ndim else 0
    if action.ndim != 2 or action.dtype.kind != "f":
        raise DataError(
            f"{path}: {which} must have actions that are floats (T, dim), got {action.dtype} {action.shape}"
        )
    for part in parts:
        if part.ndim == 0 or len(part) not in ((steps, steps + 1) if one_more else (steps,)) or not steps:
            got = f"{len(part) if part.ndim else 0} observations and {steps} actions"
            raise DataError(f"{path}: {which} must have as many observations as actions, one or more, got {got}")
    flat = [part[:steps].reshape(steps, -1) for part in parts]
    with np.errstate(over="ignore"):  # what is too large for them is infinite, and refused as such
        return [np.concatenate(flat, axis=1).astype(np.float32), action.astype(np.float32)]


# ---- zarr, as diffusion policy has it ----


def _read_zarr(path: Path, obs: Sequence[str], obs_dim: int | None) -> Recording:
    files = FolderFiles(path) if path.is_dir() else ZippedFiles(path)
    with opened(files, "restore it from a copy, or write it again") as group:
        stored = list_arrays(files, "data")
        if not stored:
            raise DataError(f"{path} holds no arrays of numbers in the group data, as diffusion policy keeps them")
        found = {
            name: _Array(shape[1:], str(dtype))
            for name, (shape, dtype) in stored.items()
            if shape and name != "data/action"
        }
        keys, columns = _choose(path, obs, (("data/obs",), ("data/state",)), found, "data/", obs_dim)
        parts, action = [read_array(group, files, key) for key in keys], read_array(group, files, "data/action")
        ends, attributes = read_array(group, files, "meta/episode_ends"), dict(group.attrs)
        kind = f"zarr v{group.metadata.zarr_format}"
    rows, action = _stack(path, "the store", parts, action, one_more=False)
    check_ends(ends, len(rows), len(action), path)
    bounds = None
    if {"action_low", "action_high"} & attributes.keys():
        low, high = find_bounds(attributes, action, path)
        bounds = (tuple(low.tolist()), tuple(high.tolist()))
    cuts = ends[:-1].astype(np.int64)
    episodes = [Recorded(*pair, None) for pair in zip(np.split(rows, cuts), np.split(action, cuts), strict=True)]
    return Recording(path, kind, keys, columns, bounds, episodes)


# ---- HDF5: robomimic, ManiSkill, Minari ----

_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_LZF: "lzf",
}
"""Those that come with h5py. For any other one HDF5 would look for a plug-in, and load it."""
_DEEPEST, _MOST_ARRAYS = 6, 1000
"""Groups inside of each other, and arrays of an episode, that are looked at."""


@dataclass(frozen=True)
class _Layout:
    """Where a project keeps what in an HDF5 file."""

    project: str
    folder: str  # group that episodes are in
    episode: str  # how an episode's name begins; a number follows
    obs: str  # its observations, an array or a group of them
    usual: tuple[tuple[str, ...], ...]  # what is taken of them if nobody says
    one_more: bool  # whether the observation after the last action may be there
    success: str  # array of flags whose last one says whether the episode succeeded; "" for none
    remedy: str  # how the project adds observations to a file without


_ROBOMIMIC_STATE = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "object")
_ROBOMIMIC_USUAL = (tuple(f"obs/{key}" for key in _ROBOMIMIC_STATE),)
_MINARI_USUAL = (("observations",), ("observations/observation",))
_EXTRACT = "robomimic's dataset_states_to_obs.py adds them"
_REPLAY = (
    "ManiSkill adds them by python -m mani_skill.trajectory.replay_trajectory --traj-path FILE -o state --save-traj"
)
_LAYOUTS = (
    _Layout("robomimic", "data", "demo_", "obs", _ROBOMIMIC_USUAL, False, "", _EXTRACT),
    _Layout("ManiSkill", "", "traj_", "obs", (("obs",),), True, "success", _REPLAY),
    _Layout("Minari", "", "episode_", "observations", _MINARI_USUAL, True, "", ""),
)


def _read_hdf5(path: Path, obs: Sequence[str], obs_dim: int | None) -> Recording:
    file = next(path / name for name in _MINARI if (path / name).is_file()) if path.is_dir() else path
    with _open_hdf5(file) as reader:
        for layout in _LAYOUTS:
            names = reader.list_numbered(layout.folder, layout.episode)
            if names:
                break
        else:
            raise DataError(f"{file} holds none of data/demo_0 (robomimic), traj_0 (ManiSkill) and episode_0 (Minari)")
        found = {
            name.removeprefix(f"{names[0]}/"): array for name, array in reader.list_arrays(f"{names[0]}/{layout.obs}")
        }
        keys, columns = _choose(path, obs, layout.usual, found, f"{layout.obs}/", obs_dim, layout.remedy)
        episodes: list[Recorded] = []
        for name in names:
            parts = [reader.read(f"{name}/{key}") for key in keys]
            rows, action = _stack(path, name, parts, reader.read(f"{name}/actions"), one_more=layout.one_more)
            success = None
            if layout.success and reader.find(f"{name}/{layout.success}") is not None:
                flags = reader.read(f"{name}/{layout.success}")
                success = bool(flags.size) and bool(flags.reshape(-1)[-1])
            if episodes and (rows.shape[1], action.shape[1]) != (episodes[0].obs.shape[1], episodes[0].action.shape[1]):
                raise DataError(
                    f"{path}: {name} has {rows.shape[1]} columns of observations and {action.shape[1]} of actions, "
                    f"{names[0]} has {episodes[0].obs.shape[1]} and {episodes[0].action.shape[1]}"
                )
            episodes.append(Recorded(rows, action, success))
    bounds = _read_minari_bounds(file.with_name("metadata.json")) if layout.project == "Minari" else None
    return Recording(path, f"{layout.project} HDF5", keys, columns, bounds, episodes)


class _HDF5:
    """An HDF5 file of which only what lies in it is read.

    All that is read of it may take as many bytes as `largest_bytes` says.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._left = largest_bytes(path.stat().st_size)

    def find(self, name: str) -> h5py.Group | h5py.Dataset | None:
        """A group or an array; None if there is none of this name; `DataError` if it is a link to elsewhere."""
        node: Any = self._file
        for part in filter(None, name.split("/")):
            if not isinstance(node, h5py.Group) or part == "." or node.get(part, getlink=True) is None:
                return None
            if not isinstance(node.get(part, getlink=True), h5py.HardLink):
                raise DataError(f"{self.path}: {name} is a link, which is not followed: write what it leads to instead")
            node = node[part]
        return node if isinstance(node, (h5py.Group, h5py.Dataset)) else None

    def list_numbered(self, folder: str, start: str) -> list[str]:
        """Names of a group's members that are `start` and a number, in the order of the numbers."""
        group = self.find(folder)
        names = list(group) if isinstance(group, h5py.Group) else []
        numbers = {name: name.removeprefix(start) for name in names if re.fullmatch(rf"{start}[0-9]{{1,18}}", name)}
        prefix = f"{folder}/" if folder else ""
        return [prefix + name for name in sorted(numbers, key=lambda name: int(numbers[name]))]

    def list_arrays(self, name: str, depth: int = 0) -> Iterator[tuple[str, _Array]]:
        """The arrays of numbers below a name, or the one that it is."""
        node = self.find(name)
        if isinstance(node, h5py.Group) and depth < _DEEPEST:
            for part in list(node)[:_MOST_ARRAYS]:
                yield from self.list_arrays(f"{name}/{part}", depth + 1)
        elif isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf" and node.shape:
            yield name, _Array(node.shape[1:], str(node.dtype))

    def read(self, name: str) -> NDArray[Any]:
        """An array of numbers.

        Raises:
            DataError: it is missing, holds something else than numbers, lies in another file, needs a filter that is
                none of `_FILTERS`, or would unfold to too many bytes.
        """
        node = self.find(name)
        if not isinstance(node, h5py.Dataset):
            raise DataError(f"{self.path}: {name} is {'missing' if node is None else 'a group and must be an array'}")
        if node.is_virtual or node.external:
            raise DataError(f"{self.path}: {name} lies in other files, which are not read: write it into this one")
        if node.dtype.kind not in "biuf" or node.shape is None:
            raise DataError(f"{self.path}: {name} must hold numbers, got {node.dtype}")
        plan = node.id.get_create_plist()
        for code in (plan.get_filter(i)[0] for i in range(plan.get_nfilters())):
            if code not in _FILTERS:
                known = ", ".join(_FILTERS.values())
                raise DataError(f"{self.path}: {name} needs filter {code}, which is not used; write it with {known}")
        largest = max(math.prod(shape) for shape in (node.shape, node.chunks or ())) * node.dtype.itemsize
        if largest > self._left:
            raise DataError(f"{self.path}: {name} would unfold to {largest} bytes; {self._left} more are read")
        self._left -= math.prod(node.shape) * node.dtype.itemsize
        return np.asarray(node[()])


@contextmanager
def _open_hdf5(path: Path) -> Iterator[_HDF5]:
    """Opens an HDF5 file; what HDF5 raises about damage is a `DataError`."""
    open_file(path).close()
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield _HDF5(path, file)
    except DataError:
        raise
    except Exception as error:  # h5py reports damage by whatever its calls raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} can't be read as HDF5: {reason}; restore it from a copy, or write it again") from None


def _read_minari_bounds(path: Path) -> Bounds | None:
    """Bounds of actions in a Minari dataset's metadata; None if there are none, or some are infinite."""
    if not path.is_file():
        return None
    space: Any = read_json(path, "Minari metadata").get("action_space")
    try:
        space = parse_json(space) if isinstance(space, str) else space
        if not isinstance(space, dict) or space.get("type") != "Box":
            return None
        low, high = (np.array(space[name], np.float64) for name in ("low", "high"))
    except (KeyError, TypeError, ValueError):  # infinities, which JSON has none of
        return None
    if low.ndim != 1 or low.shape != high.shape or not (low < high).all():
        return None
    return tuple(low.tolist()), tuple(high.tolist())


# ---- LeRobot ----

_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_SUCCESS = "next.success"
_NUMBERS = re.compile(r"bool|u?int\d+|float\d+|image|video")


def _read_lerobot(path: Path, obs: Sequence[str], obs_dim: int | None) -> Recording:
    info = read_json(path / _LEROBOT, "LeRobot dataset", "download it again")
    version = str(info.get("codebase_version"))
    if not re.fullmatch(r"v[23](\.[0-9]{1,3}){1,2}", version):
        raise DataError(
            f"{path}: a LeRobot dataset of version {version[:20]}; v2 and v3 are read, LeRobot converts others"
        )
    found = _list_features(path, info)
    if "action" not in found:
        raise DataError(f"{path}: {_LEROBOT} names no feature action with its shape")
    has_success = found.pop(_SUCCESS, None) is not None
    width = math.prod(found.pop("action").shape)
    found = {key: array for key, array in found.items() if key not in _BOOKKEEPING and not key.startswith("next.")}
    keys, columns = _choose(path, obs, (("observation.state",),), found, "observation.", obs_dim)
    widths = {key: math.prod(found[key].shape) for key in keys} | {
        "action": width,
        "episode_index": 1,
        "frame_index": 1,
    }
    if has_success:
        widths[_SUCCESS] = 1
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in widths}
    for file in _list_parquet(path):
        table = read_table(file, "LeRobot table", columns=list(widths), advice="download it again")
        for key, size in widths.items():
            parts[key].append(_to_rows(table.column(key), size, f"{file}: {key}"))
    rows = {key: np.concatenate(values) for key, values in parts.items()}
    number, frame = rows.pop("episode_index")[:, 0], rows.pop("frame_index")[:, 0]
    starts = np.flatnonzero(np.diff(number, prepend=number[:1] - 1))
    for name, got in (("total_episodes", len(starts)), ("total_frames", len(number))):
        if info.get(name) not in (None, got):
            raise DataError(f"{path}: {_LEROBOT} says {name} {info[name]}, its tables hold {got}: download it again")
    lengths = np.diff(starts, append=len(number))
    if (np.diff(number[starts]) <= 0).any() or (frame != np.arange(len(number)) - np.repeat(starts, lengths)).any():
        raise DataError(f"{path}: steps are missing or out of order: episode_index must rise, frame_index count from 0")
    flags = rows.pop(_SUCCESS, None)
    states, action = _stack(path, "the dataset", [rows[key] for key in keys], rows["action"], one_more=False)
    episodes = [
        Recorded(states[a : a + n], action[a : a + n], None if flags is None else bool(flags[a : a + n].any()))
        for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    bounds = None
    if {"action_low", "action_high"} & info.keys():  # ours, as `export-demos` writes them
        low, high = find_bounds(info, action, path)
        bounds = (tuple(low.tolist()), tuple(high.tolist()))
    return Recording(path, f"LeRobot {version}", keys, columns, bounds, episodes)


def _list_features(path: Path, info: Mapping[str, Any]) -> dict[str, _Array]:
    """Columns of numbers, and pictures, that a dataset says it has."""
    features = info.get("features")
    if not isinstance(features, dict):
        raise DataError(f"{path}: {_LEROBOT} names no features")
    found = {}
    for name, feature in features.items():
        kind, shape = (feature.get("dtype"), feature.get("shape")) if isinstance(feature, dict) else (None, None)
        if isinstance(kind, str) and _NUMBERS.fullmatch(kind) and isinstance(shape, list):
            if not all(isinstance(size, int) and 0 < size < 10**6 for size in shape):
                raise DataError(f"{path}: {_LEROBOT} says that {name} has shape {shape}")
            found[name] = _Array(tuple(shape), kind)
    return found


def _list_parquet(path: Path) -> list[Path]:
    """The dataset's tables in their order; `DataError` if there is none, or if a folder of them is a link."""
    files = sorted(path.glob("data/chunk-*/*.parquet"))
    for folder in {path / "data", *(file.parent for file in files)}:
        if folder.is_symlink():
            raise DataError(f"{folder} is a link to a folder: put the folder in its place")
    if not files:
        raise DataError(f"{path} holds no data/chunk-*/*.parquet: download it whole")
    return files


def _to_rows(column: pa.ChunkedArray, width: int, what: str) -> NDArray[Any]:
    """A column of numbers, or of lists of as many of them, as an array (T, width)."""
    values = column.combine_chunks()
    steps = len(values)
    is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
    if is_list or pa.types.is_fixed_size_list(values.type):
        sizes = pc.unique(pc.list_value_length(values)).to_pylist()
        if sizes not in ([], [width]):
            raise DataError(f"{what} must hold {width} numbers a step, some have {sizes[0]}, others {sizes[-1]}")
        values = pc.list_flatten(values)
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)) or values.null_count:
        raise DataError(f"{what} must hold numbers alone, got {column.type}, {values.null_count} of them missing")
    if len(values) != steps * width:
        raise DataError(f"{what} must hold {width} numbers a step, got {len(values)} in {steps} steps")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(steps, width)


# ---- Bringing them to a task ----


@dataclass(frozen=True)
class Fitted:
    """A recording's episodes as demonstrations of a task."""

    episodes: list[Episode]  # actions in the task's units, within its bounds
    clipped_share: float  # of the actions' values, which were moved to the nearest bound
    num_failed: int  # episodes that were left out, since the file says that they failed


def fit_to_task(
    recording: Recording, spec: TaskSpec, *, bounds: Bounds | None, clip: bool, keep_failures: bool
) -> Fitted:
    """Brings a recording to a task's units.

    Actions are taken to be in the task's units, unless `bounds` says which values stand for its bounds: they are then
    scaled.

    Args:
        recording: with observations of the task's size.
        spec: the task's.
        bounds: of the recorded actions, in place of what the file says.
        clip: whether values beyond them are moved to the nearest one, as some environments do.
        keep_failures: whether episodes that failed are demonstrations too.

    Raises:
        DataError: actions are of another size, in other units, or beyond their bounds; or no episode succeeded.
    """
    path, wanted = recording.path, (spec.action_low, spec.action_high)
    width = recording.episodes[0].action.shape[1]
    if width != spec.action_dim:
        raise DataError(f"{path}: an action has {width} columns, one of {spec.name} {spec.action_dim}")
    kept = [episode for episode in recording.episodes if keep_failures or episode.success is not False]
    if not kept:
        raise DataError(
            f"{path}: all {len(recording.episodes)} episodes failed, by what it says; --keep-failures takes them"
        )
    reach = np.abs(np.concatenate([episode.action for episode in kept])).max()
    is_unit = _agree(wanted, ((-1.0,) * width, (1.0,) * width))
    said = bounds or recording.bounds
    if bounds is None and recording.bounds and not _agree(recording.bounds, wanted):
        raise DataError(
            f"{path}: its actions are between {show_bounds(recording.bounds)}, those of {spec.name} between "
            f"{show_bounds(wanted)}; --bounds={show_bounds(recording.bounds)} scales them, or correct those of the task"
        )
    if said is None and not is_unit and reach <= 1.0 + TOLERANCE:
        raise DataError(
            f"{path}: its actions are between -1 and 1, those of {spec.name} between {show_bounds(wanted)}; say what "
            f"they are in: --bounds=-1:1 scales them, --bounds={show_bounds(wanted)} takes them as they are"
        )
    said = said or wanted
    (low, high), (new_low, new_high) = np.array(said), np.array(wanted)
    episodes, outside = [], 0
    for index, episode in enumerate(kept):
        scaled = from_bounds(episode.action.astype(np.float64), low, high)
        beyond = np.abs(scaled) > 1.0 + TOLERANCE
        outside += int(beyond.sum())
        for step, column in np.argwhere(beyond)[:1].tolist() if not clip else []:
            raise DataError(
                f"{path}: action {episode.action[step, column]:g} in episode {index}, step {step}, column {column} is "
                f"beyond its bounds, {show_bounds(said)}: --clip if the environment clips what it is given, --bounds "
                "LOW:HIGH if they are others"
            )
        action = (
            episode.action
            if _agree(said, wanted) and not beyond.any()
            else to_bounds(scaled.clip(-1.0, 1.0), new_low, new_high)
        )
        episodes.append(Episode(episode.obs, action.astype(np.float32), success=True, behaviour=0))
    share = outside / sum(episode.action.size for episode in kept)
    return Fitted(episodes, share, len(recording.episodes) - len(kept))


def _agree(a: Bounds, b: Bounds) -> bool:
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-6, atol=0.0)


def show_bounds(bounds: Bounds) -> str:
    """Bounds as `--bounds` takes them: LOW:HIGH, once if they are the same for all components."""
    pairs = [f"{low:g}:{high:g}" for low, high in zip(*bounds, strict=True)]
    return pairs[0] if len(set(pairs)) == 1 else ",".join(pairs)


def parse_bounds(text: str, action_dim: int) -> Bounds:
    """Reads LOW:HIGH, one pair for all components of an action or one for each, with commas between.

    Raises:
        ConfigError: it is something else.
    """
    try:
        pairs = [tuple(map(float, pair.split(":"))) for pair in text.split(",")]
    except ValueError:
        pairs = []
    pairs = pairs * action_dim if len(pairs) == 1 else pairs
    if len(pairs) != action_dim or not all(len(p) == 2 and -math.inf < p[0] < p[1] < math.inf for p in pairs):
        raise ConfigError(
            f"--bounds must be LOW:HIGH, once or for each of {action_dim} components with commas between, got {text!r}"
        )
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
