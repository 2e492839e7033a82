"""What jobs ask a cluster for, against what they were seen to take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.resources import READERS, estimate_mem_mb, estimate_minutes
from bmd_pipeline.config.run import RunConfig

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\w+) \| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", re.MULTILINE)
ORDER = ("collect", "pretrain", "discover", "finetune", "evaluate", "summarise")
MEASURED = [
    (task, stage, *map(int, numbers))
    for task, stage, *numbers in ROW.findall((ROOT / "docs/results/resources.md").read_text())
]


def read(*assignments: str, task: str = "AvoidPoint", preset: str = "cpu") -> RunConfig:
    return load_config(task, preset=preset, assignments=assignments, config_dir=ROOT / "config")


def test_the_table_covers_every_stage_that_computes() -> None:
    assert len(MEASURED) == 18
    assert {stage for _, stage, *_ in MEASURED} == set(ORDER)


@pytest.mark.parametrize(("task", "stage", "threads", "took_mb", "took_s", "mem_mb", "minutes"), MEASURED)
def test_what_was_measured_fits_into_what_is_asked(
    task: str, stage: str, threads: int, took_mb: int, took_s: int, mem_mb: int, minutes: int
) -> None:
    config = read(task=task)
    assert getattr(config.execution.threads, stage, 1) == threads
    simulated = task == "PushT"
    assert estimate_mem_mb(config, stage, threads=threads, simulated=simulated) == mem_mb
    assert estimate_minutes(config, stage, threads=threads, simulated=simulated) == minutes
    assert took_mb + 200 < mem_mb  # two Snakemakes run around it
    assert took_s < 60 * minutes


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("finetune", "finetune.num_envs=16384"),
        ("discover", "discover.num_envs=16384"),
        ("discover", "discover.seed_episodes=100000"),
        ("evaluate", "evaluate.episodes=16384"),
        ("pretrain", "collect.num_episodes=20000"),
        ("compare", f"seeds={list(range(40))}"),
        ("grid", "grid={weights: [0.1, 0.2, 0.3, 0.4, 0.5], num_modes: [2, 3, 4, 5, 6]}"),
    ],
)
def test_memory_grows_with_what_it_holds(stage: str, setting: str) -> None:
    before, after = (estimate_mem_mb(config, stage, threads=1, simulated=False) for config in (read(), read(setting)))
    assert after > before


def test_measured_growth_is_covered() -> None:
    for stage, setting, took_mb in (
        ("finetune", "finetune.num_envs=16384", 1523),
        ("evaluate", "evaluate.episodes=16384", 1104),
        ("discover", "discover.seed_episodes=16384", 554),
    ):
        assert estimate_mem_mb(read(setting), stage, threads=1, simulated=False) > took_mb + 200


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("collect", "collect.num_episodes=100000"),
        ("pretrain", "pretrain.iterations=100000"),
        ("discover", "discover.warmup_iterations=1000"),
        ("finetune", "finetune.iterations=1000"),
        ("evaluate", "evaluate.episodes=1000000"),
        ("curve", "curve.episodes=1000000"),
    ],
)
def test_time_grows_with_the_work_and_falls_with_cores(stage: str, setting: str) -> None:
    long = estimate_minutes(read(setting), stage, threads=1, simulated=True)
    assert long > estimate_minutes(read(), stage, threads=1, simulated=True)
    assert long > estimate_minutes(read(setting), stage, threads=8, simulated=True) >= 10


def test_workers_of_a_simulator_count_and_readers_have_none() -> None:
    config = read(task="PushT")
    one, eight = (estimate_mem_mb(config, "finetune", threads=n, simulated=True) for n in (1, 8))
    assert eight - one > 7 * 400
    assert estimate_mem_mb(config, "finetune", threads=8, simulated=False) < one
    for stage in READERS:
        assert estimate_mem_mb(config, stage, threads=1, simulated=True) < 1500
