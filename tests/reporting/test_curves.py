"""Learning curves, thinned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.reporting.sources import MAX_POINTS, load_curves, load_pretraining


def write(path: Path, rows: list[dict[str, float | None]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_short_logs_are_kept_as_they_are(tmp_path: Path) -> None:
    rows = [{"step": step, "rollout/success_rate": step / 10, "losses/kl_share": None} for step in (1, 2, 3)]
    curves = load_curves(write(tmp_path / "log", rows))
    assert (curves.step, curves.stride) == ([1, 2, 3], 1)
    assert curves.values == {"success": [0.1, 0.2, 0.3], "kl": [None, None, None]}  # others are not in the log


def test_long_logs_keep_means_and_the_peaks_of_kl(tmp_path: Path) -> None:
    count = 3 * MAX_POINTS
    rows = [
        {"step": step, "rollout/success_rate": float(step), "losses/kl_share": 9.0 if step == 5 else 0.1}
        for step in range(1, count + 1)
    ]
    curves = load_curves(write(tmp_path / "log", rows))
    assert len(curves.step) == MAX_POINTS
    assert (curves.stride, curves.step[:2], curves.step[-1]) == (3, [3, 6], count)
    assert curves.values["success"][:2] == [2.0, 5.0]
    assert curves.values["kl"][:3] == [0.1, 9.0, 0.1]


def test_iterations_that_left_the_policy_alone_say_nothing_of_it(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "rollout/success_rate": 0.5, "losses/entropy": 0.0, "losses/policy_steps": 0.0},
        {"step": 2, "rollout/success_rate": 0.6, "losses/entropy": 22.0, "losses/policy_steps": 8.0},
    ]
    curves = load_curves(write(tmp_path / "log", rows))
    assert curves.values == {"success": [0.5, 0.6], "entropy": [None, 22.0]}


def test_pretraining_shows_the_rounds_that_were_played_and_fine_tuning_its_rollouts(tmp_path: Path) -> None:
    rows: list[dict[str, float | None]] = [{"step": step, "train_loss": 1.0} for step in range(1, 7)]
    assert load_pretraining(write(tmp_path / "log", rows)) is None
    assert load_pretraining(tmp_path / "none") is None  # a policy that was imported
    for row in rows[2::3]:
        row["select/success_rate"] = 0.25
    curves = load_pretraining(write(tmp_path / "log", rows))
    assert curves is not None
    assert (curves.step, curves.values, curves.stride) == ([3, 6], {"selected": [0.25, 0.25]}, 1)
    assert "selected" not in load_curves(tmp_path / "log").values


def test_damaged_logs_are_named_with_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", [{"step": 1}, {"step": 2}])
    path.write_text(path.read_text()[:-5])
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl, line 2"):
        load_curves(path)
