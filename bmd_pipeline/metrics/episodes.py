"""Per-episode rows of an evaluation, and the parquet file that holds them.

One row per episode: who played (policy, seed, episode, code), what came of it (success, length,
episode_return, information, deviation) and which mode it belongs to: `<labelling>` names the mode, or is null for a
failure that was still undecided, and `<labelling>/<mode>` holds the weights that the metrics use.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.files import advise_again, read_table
from bmd_pipeline.io.layout import MARK

Floats = NDArray[np.float64]
"""Numbers of the shape that is said beside them."""

_ARRAYS = ("code", "success", "length", "episode_return", "information", "deviation")
PLAIN_COLUMNS = {
    "policy": pa.string(),
    "seed": pa.int64(),
    "episode": pa.int64(),
    "num_codes": pa.int64(),
    "code": pa.int64(),
    "success": pa.bool_(),
    "length": pa.int64(),
    "episode_return": pa.float64(),
    "information": pa.float64(),
    "deviation": pa.float64(),
}
"""Types by name; those of labellings are added."""


@dataclass(frozen=True)
class ModeWeights:
    """Which mode each episode belongs to, under one labelling."""

    modes: tuple[str, ...]
    weights: NDArray[np.float64]  # (num_episodes, num_modes) rows that sum to one

    def labels(self) -> list[str | None]:
        """Mode name per episode, None where the weight is spread over several."""
        best = self.weights.argmax(axis=1)
        sure = self.weights.max(axis=1) > 0.999
        return [self.modes[i] if known else None for i, known in zip(best, sure, strict=True)]


@dataclass(frozen=True)
class Episodes:
    """The evaluation episodes of one policy and seed."""

    policy: str  # "pretrained", "taught" or a method
    seed: int  # its training seed
    num_codes: int  # mode codes K it can be commanded with; 1 without
    code: NDArray[np.int64]  # (num_episodes,) code that commanded each episode
    success: NDArray[np.bool_]  # (num_episodes,)
    length: NDArray[np.int64]  # (num_episodes,) control steps
    episode_return: NDArray[np.float64]  # (num_episodes,) undiscounted task reward
    information: NDArray[np.float64]  # (num_episodes,) log q(z|h) − log p(z) in nats; 0 with one code
    # (num_episodes,) how far a successful episode's path is from the mean path of its mode, as `measure_deviations`;
    # NaN in tables of older releases
    deviation: NDArray[np.float64]
    labellings: Mapping[str, ModeWeights]  # by name, the main one first
    # By labelling, the mode that each code asks for, as selection seeds showed it; empty without codes, and in rows
    # from a table alone: eval.json holds it.
    behaviours: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    # Of all episodes; eval.json holds both.
    dropped: int = 0  # showed numbers that can't be used, and count as failed
    obs_reach: tuple[float, ...] = ()  # (obs_dim,) farthest from the demonstrations' mean, in standard deviations

    def __len__(self) -> int:
        return len(self.success)


def concat_episodes(parts: Sequence[Episodes], limit: int) -> Episodes:
    """The first `limit` episodes of several parts of one policy and seed."""

    def join(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(values)[:limit]

    arrays: dict[str, Any] = {name: join([getattr(part, name) for part in parts]) for name in _ARRAYS}
    labellings = {
        name: ModeWeights(labelling.modes, join([part.labellings[name].weights for part in parts]))
        for name, labelling in parts[0].labellings.items()
    }
    return replace(parts[0], labellings=labellings, **arrays)


def encode_episodes(parts: Sequence[Episodes]) -> bytes:
    """Parquet file with the rows of all parts, which share their labellings."""
    buffer = io.BytesIO()
    table = pa.concat_tables(map(_to_table, parts)).replace_schema_metadata({"creator": MARK})
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def load_episodes(path: Path) -> list[Episodes]:
    """Reads a parquet file of episodes, one part per policy and seed, in the order of the file.

    Raises:
        ArtifactError: the file is missing, damaged or not an episode table.
    """
    table = read_table(path, "episode table")
    if "deviation" not in table.column_names:  # of an older release
        table = table.append_column("deviation", pa.array(np.full(len(table), np.nan)))
    _require_columns(table, path)
    parts = []
    for policy, seed in dict.fromkeys(zip(table["policy"].to_pylist(), table["seed"].to_pylist(), strict=True)):
        # By a mask, since filtering by an expression doesn't promise the order of rows.
        rows = pc.and_(pc.equal(table["policy"], policy), pc.equal(table["seed"], seed))
        part = _from_table(table.filter(rows), policy, seed)
        _require_plausible(part, path)
        parts.append(part)
    return parts


def _require_columns(table: pa.Table, path: Path) -> None:
    """Every column is there once, of its type and without gaps."""
    names = table.column_names
    expected = dict(PLAIN_COLUMNS)
    for name in names:
        if "/" in name:
            expected |= {name: pa.float64(), name.partition("/")[0]: pa.string()}
    wrong = [
        name
        for name, kind in expected.items()
        if names.count(name) != 1
        or table.schema.field(name).type != kind
        or (table[name].null_count and (name in PLAIN_COLUMNS or kind == pa.float64()))
    ]
    if wrong or len(expected) == len(PLAIN_COLUMNS):
        which = f"no sound column {', '.join(wrong)}" if wrong else "no labelling"
        raise ArtifactError(f"{path}: not an episode table: {which}; delete it and {advise_again(path)}")


def _require_plausible(part: Episodes, path: Path) -> None:
    """Numbers are such as an evaluation writes."""
    codes = (part.code >= 0) & (part.code < part.num_codes) & (part.length >= 1)
    sound = bool(codes.all() and np.isfinite(part.episode_return).all() and np.isfinite(part.information).all())
    sound = sound and bool((part.deviation >= 0.0).all() or np.isnan(part.deviation).all())
    for labelling in part.labellings.values():
        weights = labelling.weights
        sound = sound and bool((weights >= 0.0).all() and np.allclose(weights.sum(axis=1), 1.0, atol=1e-3))
    if not sound or not part.policy:
        raise ArtifactError(f"{path}: holds numbers that no evaluation writes; delete it and {advise_again(path)}")


def _to_table(part: Episodes) -> pa.Table:
    n = len(part)
    columns = {
        "policy": pa.array([part.policy] * n, pa.string()),
        "seed": pa.array(np.full(n, part.seed, np.int64)),
        "episode": pa.array(np.arange(n)),
        "num_codes": pa.array(np.full(n, part.num_codes, np.int64)),
        **{name: pa.array(getattr(part, name)) for name in _ARRAYS},
    }
    for name, labelling in part.labellings.items():
        columns[name] = pa.array(labelling.labels(), pa.string())
        for i, mode in enumerate(labelling.modes):
            columns[f"{name}/{mode}"] = pa.array(np.ascontiguousarray(labelling.weights[:, i]))
    return pa.table(columns)


def _from_table(table: pa.Table, policy: str, seed: int) -> Episodes:
    weight_columns: dict[str, list[str]] = {}
    for column in table.column_names:
        labelling, slash, mode = column.partition("/")
        if slash:
            weight_columns.setdefault(labelling, []).append(mode)
    return Episodes(
        policy=policy,
        seed=seed,
        num_codes=table["num_codes"][0].as_py(),
        **{name: table[name].to_numpy() for name in _ARRAYS},
        labellings={
            name: ModeWeights(tuple(modes), np.stack([table[f"{name}/{mode}"].to_numpy() for mode in modes], axis=1))
            for name, modes in weight_columns.items()
        },
    )
