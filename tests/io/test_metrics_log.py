"""Reading metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.logger import Tracker, load_metrics


def test_it_reads_what_the_tracker_wrote(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Tracker(path) as tracker:
        tracker.log(1, {"losses/value": 0.5, "losses/approx_kl": float("nan")})
        tracker.log(2, {"losses/value": 0.25})
    first, second = load_metrics(path)
    assert (first["step"], first["losses/value"], first["losses/approx_kl"]) == (1, 0.5, None)
    assert (second["step"], second["losses/value"]) == (2, 0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ('{"step": 1}\n{"step": 2, "lo', "line 2: damaged"),
        ('{"wall_s": 1}\n', "line 1: damaged"),
        ("[1]\n", "line 1: damaged"),
        ('{"step": 1e999}\n', "line 1: damaged"),
        ('{"step": 1, "rollout/success_rate": ' + "9" * 400 + "}\n", "line 1: damaged"),
        ("[" * 100_000, "line 1: damaged"),
    ],
)
def test_damage_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message) as error:
        load_metrics(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes('{"step": 1}\n'.encode("utf-16"))
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl can't be read: .*utf-8"):
        load_metrics(tmp_path / "metrics.jsonl")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl can't be read"):
        load_metrics(tmp_path / "metrics.jsonl")
