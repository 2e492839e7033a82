"""The figure over control steps: what is drawn where."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.control_steps import find_lines, plot_lines
from bmd_pipeline.errors import ArtifactError


def write_run(root: Path, name: str, method: str, steps: list[float], iterations: list[int]) -> None:
    folder = root / "results" / name / method / "seed0"
    folder.mkdir(parents=True)
    rows = [{"step": k, "rollout/control_steps": value} for k, value in enumerate(steps, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    points = [
        {
            "iteration": iteration,
            "success_rate": {"mean": 0.5 + 0.1 * iteration},
            "solved": {"mean": iteration},
            "obeyed": {"mean": 1.0},
            "mode_shares": {"left": 0.5, "right": 0.5},
        }
        for iteration in iterations
    ]
    (folder / "curve.json").write_text(json.dumps({"points": points}))


def test_snapshots_stand_at_the_steps_played_by_then(tmp_path: Path) -> None:
    write_run(tmp_path, "Toy-base0", "dppo", [100.0, 50.0, 25.0], [0, 2, 3])
    write_run(tmp_path, "Toy-base1", "dppo", [300.0, 50.0], [0, 2])
    write_run(tmp_path, "Other", "dppo", [1.0], [0, 1])
    lines = find_lines(tmp_path, "Toy", "dppo")
    assert [line.steps.tolist() for line in lines] == [[0.0, 150.0, 175.0], [0.0, 350.0]]
    np.testing.assert_allclose(lines[0].scores["success_rate"], [0.5, 0.7, 0.8])
    figure = plot_lines({"plain": lines})
    mean = figure.axes[0].lines[-1]
    np.testing.assert_allclose(np.asarray(mean.get_xdata()) * 1e6, [0.0, 250.0])
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), [0.5, 0.7])


def test_runs_without_snapshots_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no curve.json of dppo on Toy; `bmd-pipeline curve` makes it"):
        find_lines(tmp_path, "Toy", "dppo")
    write_run(tmp_path, "Toy", "dppo", [1.0], [0, 2])
    with pytest.raises(ArtifactError, match="snapshots that the log beside it does not know"):
        find_lines(tmp_path, "Toy", "dppo")
