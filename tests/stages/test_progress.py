"""What `watch` reads: files of jobs that are at work, finished, or dead."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bmd_pipeline.cli.main import main
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.watch import SILENT_SECONDS, count_jobs, list_progress
from tests.metrics.drawn import draw_episodes
from tests.stages.evaluations import write_evaluation

NOW = 1_000_000.0


def report(path: Path, *lines: dict[str, object] | str, ago: float = 5.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    os.utime(path, (NOW - ago, NOW - ago))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    rollout = {"rollout/control_steps": 6400, "rollout/episode_return": 0.5, "rollout/success_rate": 0.25}
    finetuned = tmp_path / "results/Reach/grid/num_modes=4,mi_weight=0.1/dsrl-bmd/seed0"
    report(
        finetuned / "metrics.jsonl",
        {"step": 6, "wall_s": 8.0, **rollout},
        {"step": 7, "wall_s": 10.0, **rollout, "modes/information": 1.5},
        '{"step": 8, "wal',  # being written
    )
    lines = ({"step": 100 * k, "wall_s": 2.0 * k, "train_loss": None} for k in range(1, 1000))
    report(tmp_path / "results/Reach/policy/checkpoints/metrics.jsonl", *lines, ago=SILENT_SECONDS + 1)
    return Layout(tmp_path)


def test_running_and_silent_jobs_are_told_apart(layout: Layout) -> None:
    finetuned, policy = list_progress(layout, now=NOW)
    assert (finetuned.job, finetuned.state) == ("Reach/grid/num_modes=4,mi_weight=0.1/dsrl-bmd/seed0", "running")
    assert (finetuned.step, finetuned.rate, finetuned.unit) == (7, 3200.0, "steps/s")
    assert (finetuned.episode_return, finetuned.success, finetuned.information, finetuned.solved) == (
        0.5,
        0.25,
        1.5,
        None,
    )
    assert (policy.job, policy.state, policy.step) == ("Reach/policy", "silent", 99900)
    assert (policy.rate, policy.unit) == (50.0, "it/s")


def test_lines_of_no_use_are_left_out(tmp_path: Path) -> None:
    odd = ('{"step": 1}', '{"step": 1, "wall_s": null}', "[1]", "3", "[" * 100_000, '{"step": "x", "wall_s": 1}')
    for number, line in enumerate(odd):
        report(tmp_path / f"results/Reach/dppo/seed{number}/metrics.jsonl", line)
    assert list_progress(Layout(tmp_path), now=NOW) == []


def test_an_evaluation_brings_success_and_modes(layout: Layout) -> None:
    config = RunConfig.model_validate({"task": {"name": "GaussianMixture"}})
    part = draw_episodes("dsrl-bmd", 0, rates=[1.0] * 4, shares=[1, 1, 1, 1], n=200, rng=np.random.default_rng(0))
    folder = layout.finetuned("Reach", "grid/num_modes=4,mi_weight=0.1/dsrl-bmd", 0)
    write_evaluation(config, folder / "eval.json", part)
    (folder / "run.json").write_text("{}")
    finetuned = next(job for job in list_progress(layout, now=NOW) if "seed0" in job.job)
    assert (finetuned.state, finetuned.success, finetuned.solved) == ("done", 1.0, (4.0, 4))
    (folder / "eval.json").write_text("{")  # damaged: not for this command to judge
    finetuned = next(job for job in list_progress(layout, now=NOW) if "seed0" in job.job)
    assert (finetuned.success, finetuned.solved) == (0.25, None)


def test_the_last_run_of_snakemake_is_counted(tmp_path: Path) -> None:
    assert count_jobs(tmp_path) is None
    logs = tmp_path / ".snakemake" / "log"
    logs.mkdir(parents=True)
    (logs / "2026-01-01T000000.1.snakemake.log").write_text("9 of 9 steps (100%) done\n")
    (logs / "2026-01-02T000000.1.snakemake.log").write_text("1 of 986 steps (0%) done\n2 of 986 steps (0%) done\n")
    assert count_jobs(tmp_path) == (2, 986)


def test_the_command_shows_the_latest_first(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(layout.root)
    assert main(["watch", "--once", "--rows", "1"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == "0 running, 2 silent, 0 done, 0 steps/s"
    assert "mi_weight=0.1/dsrl-bmd/seed0" in text
    assert "Reach/policy" not in text


def test_an_empty_folder_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", "--once"]) == 0
