"""The per-episode table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights, encode_episodes, load_episodes


def make_part(policy: str, seed: int, n: int) -> Episodes:
    rng = np.random.default_rng(seed)
    weights = np.eye(2)[rng.integers(2, size=n)]
    weights[0] = (0.25, 0.75)
    return Episodes(
        policy=policy,
        seed=seed,
        num_codes=3,
        code=rng.integers(3, size=n),
        success=np.arange(n) % 2 == 1,
        length=rng.integers(1, 9, size=n),
        episode_return=rng.normal(size=n),
        information=rng.normal(size=n),
        deviation=rng.random(n),
        labellings={
            "turn": ModeWeights(("left", "right"), weights),
            "goal": ModeWeights(("a/b", "c", "d"), np.eye(3)[rng.integers(3, size=n)]),
        },
    )


def test_round_trip_keeps_every_part_apart(tmp_path: Path) -> None:
    parts = [make_part("pretrained", 1, 5), make_part("dsrl", 0, 4), make_part("dsrl", 1, 3)]
    path = tmp_path / "episodes.parquet"
    path.write_bytes(encode_episodes(parts))
    loaded = load_episodes(path)
    assert [(part.policy, part.seed, len(part)) for part in loaded] == [
        ("pretrained", 1, 5),
        ("dsrl", 0, 4),
        ("dsrl", 1, 3),
    ]
    for part, copy in zip(parts, loaded, strict=True):
        assert copy.num_codes == 3
        for name in ("code", "success", "length", "episode_return", "information", "deviation"):
            np.testing.assert_array_equal(getattr(copy, name), getattr(part, name))
        assert list(copy.labellings) == ["turn", "goal"]
        for name, labelling in part.labellings.items():
            assert copy.labellings[name].modes == labelling.modes
            np.testing.assert_array_equal(copy.labellings[name].weights, labelling.weights)


def test_tables_of_older_releases_have_no_deviation(tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    path.write_bytes(encode_episodes([make_part("dsrl", 0, 4)]))
    pq.write_table(pq.read_table(path).drop_columns("deviation"), path)
    (loaded,) = load_episodes(path)
    assert np.isnan(loaded.deviation).all()


def test_undecided_failures_have_weights_but_no_label(tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    path.write_bytes(encode_episodes([make_part("dsrl", 0, 4)]))
    table = pq.read_table(path)
    assert table["turn"].to_pylist()[0] is None
    assert set(table["turn"].to_pylist()[1:]) <= {"left", "right"}
    assert table["turn/right"].to_pylist()[0] == 0.75


def test_bad_files_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "episodes.parquet"
    with pytest.raises(ArtifactError, match="missing episode table"):
        load_episodes(path)
    path.write_bytes(encode_episodes([make_part("dsrl", 0, 4)])[:-20])
    with pytest.raises(
        ArtifactError, match=r"damaged episode table .*; delete it and make it again, with `sn"
    ) as error:
        load_episodes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    pq.write_table(pa.table({"policy": ["dsrl"]}), path)
    with pytest.raises(ArtifactError, match="no sound column seed, episode"):
        load_episodes(path)
    path.write_bytes(encode_episodes([make_part("dsrl", 0, 4)]))
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "policy", pa.array(["dsrl", None, "dsrl", "dsrl"])), path)
    with pytest.raises(ArtifactError, match="no sound column policy"):
        load_episodes(path)
