"""What demonstrations look like: counts, lengths, ranges, histograms and trajectories, of any format."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.demos.formats import Recording, read_recording, show_bounds
from bmd_pipeline.errors import ConfigError
from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.reporting.figures import encode_picture, plot_demos

BINS = 16
"""Bars of a histogram."""
NUM_POINTS = 64
"""Most points of a trajectory, evenly spaced in time."""
_MAP = (56, 18)
"""Letters across and down of the map of trajectories."""
_BARS, _PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_SHADES, _PLAIN_SHADES = " ░▒▓█", " .+*#"


@dataclass(frozen=True)
class Inspection:
    """The findings, as a JSON document, and in words."""

    document: dict[str, Any]

    def describe(self, *, unicode: bool = True) -> Iterator[str]:
        """Lines for people; without `unicode` in ASCII alone."""
        found, bars = self.document, _BARS if unicode else _PLAIN_BARS
        episodes, lengths = found["episodes"], found["lengths"]
        failed = "" if found["failed"] is None else f", {found['failed']} of them failed"
        yield f"{found['path']}: {found['format']}, {episodes} episodes{failed}, {found['steps']} steps"
        yield f"observations: {', '.join(found['obs'])} ({len(found['columns']['obs'])} columns)"
        yield f"bounds of actions: {found['bounds'] or 'not said'}"
        spread = f"{lengths['min']} to {lengths['max']}, median {lengths['median']:g}"
        yield f"steps of an episode: {spread}  [{_draw_bars(lengths['histogram'], bars)}]"
        rows = [*found["columns"]["obs"], *found["columns"]["action"]]
        width = max(len(row["name"]) for row in rows)
        yield ""
        yield f"{'column':<{width}}  {'min':>10}  {'mean':>10}  {'max':>10}  {'std':>10}  from min to max"
        for row in rows:
            numbers = "  ".join(f"{row[name]:>10.4g}" for name in ("min", "mean", "max", "std"))
            yield f"{row['name']:<{width}}  {numbers}  [{_draw_bars(row['histogram'], bars)}]"
        paths = found["trajectories"]
        across, up = paths["columns"]
        yield ""
        yield f"where episodes go: {across} to the right, {up} upwards"
        yield from _draw_map(paths["points"], _SHADES if unicode else _PLAIN_SHADES)


def inspect_demos(path: Path, *, obs: tuple[str, ...], plane: tuple[int, int], picture: Path | None) -> Inspection:
    """Looks at demonstrations.

    Args:
        path: file or folder of any format of `bmd_pipeline.demos.formats`.
        obs: arrays that make an observation; none takes what is usual in the format.
        plane: columns of the observation that trajectories are shown in.
        picture: a PNG file to draw, if any.

    Raises:
        DataError: the demonstrations are missing, damaged or not safe to read.
        ConfigError: the observation has no such columns.
        ArtifactError: the picture can't be written.
    """
    recording = read_recording(path, obs)
    if max(plane) >= len(recording.columns):
        raise ConfigError(f"--plane must be two of 0 to {len(recording.columns) - 1}, got {plane[0]},{plane[1]}")
    inspection = Inspection(_look_at(recording, plane))
    if picture:
        write_bytes(picture, encode_picture(plot_demos(inspection.document)))
    return inspection


def _look_at(recording: Recording, plane: tuple[int, int]) -> dict[str, Any]:
    episodes = recording.episodes
    lengths = np.array([len(episode.action) for episode in episodes])
    known = [episode.success for episode in episodes if episode.success is not None]
    action = np.concatenate([episode.action for episode in episodes])
    names = [f"action[{i}]" for i in range(action.shape[1])]
    points = [_thin(episode.obs[:, list(plane)]) for episode in episodes]
    return {
        "path": str(recording.path),
        "format": recording.format,
        "episodes": len(episodes),
        "failed": known.count(False) if known else None,
        "steps": int(lengths.sum()),
        "lengths": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
            "histogram": np.histogram(lengths, BINS)[0].tolist(),
        },
        "obs": list(recording.obs_keys),
        "bounds": None if recording.bounds is None else show_bounds(recording.bounds),
        "columns": {
            "obs": _describe(np.concatenate([episode.obs for episode in episodes]), recording.columns),
            "action": _describe(action, names),
        },
        "trajectories": {
            "columns": [recording.columns[i] for i in plane],
            "points": [path.tolist() for path in points],
        },
    }


def _describe(rows: NDArray[np.float32], names: Any) -> list[dict[str, Any]]:
    """Range, mean, spread and histogram from least to greatest of each column."""
    wide = rows.astype(np.float64)
    return [
        {
            "name": name,
            "min": float(column.min()),
            "mean": float(column.mean()),
            "max": float(column.max()),
            "std": float(column.std()),
            "histogram": np.histogram(column, BINS)[0].tolist(),
        }
        for name, column in zip(names, wide.T, strict=True)
    ]


def _thin(path: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most `NUM_POINTS` points of a path (T, 2), the first and the last among them."""
    kept: NDArray[np.float32] = path[np.linspace(0, len(path) - 1, min(NUM_POINTS, len(path))).round().astype(int)]
    return kept


def _draw_bars(counts: list[int], bars: str) -> str:
    """A letter for each count, its height in proportion to the largest; what is not 0 is seen."""
    top = max(counts)
    return "".join(bars[-(-count * (len(bars) - 1) // top)] for count in counts)


def _draw_map(points: list[list[list[float]]], shades: str) -> Iterator[str]:
    """Lines of a map of all paths, darker where more episodes pass."""
    columns, rows = _MAP
    whole = np.concatenate([np.array(path) for path in points])
    low, high = whole.min(axis=0), whole.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    passing = np.zeros((rows, columns), np.int64)
    for path in points:
        cells = np.unique(((np.array(path) - low) / width * (columns - 1, rows - 1)).round().astype(int), axis=0)
        passing[rows - 1 - cells[:, 1], cells[:, 0]] += 1
    for row in passing.tolist():
        yield "  " + "".join(shades[-(-count * (len(shades) - 1) // int(passing.max()))] for count in row).rstrip()
    yield f"  {low[0]:.4g} to {high[0]:.4g} across, {low[1]:.4g} to {high[1]:.4g} up"
