"""What jobs ask a cluster for, against what they were seen to take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from bmd_pipeline.cli.main import app
from bmd_pipeline.config import hashing, resources
from bmd_pipeline.config.hashing import list_definitions
from bmd_pipeline.config.load import load_config
from bmd_pipeline.config.resources import READERS, RESUMABLE, estimate_mem_mb, estimate_minutes
from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.tasks.registry import get_entry, list_entries

NATIVE = resources.NATIVE
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
    simulator = get_entry(task).simulator
    assert estimate_mem_mb(config, stage, threads=threads, simulator=simulator) == mem_mb
    assert estimate_minutes(config, stage, threads=threads, simulator=simulator) == minutes
    assert took_mb + 200 < mem_mb  # two Snakemakes run around it
    assert took_s < 60 * minutes


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("finetune", "finetune.num_envs=16384"),
        ("discover", "discover.num_envs=16384"),
        ("discover", "discover.hindsight_episodes=100000"),
        ("evaluate", "evaluate={episodes: 16384, num_envs: 16384}"),
        ("curve", "evaluate.episodes=200000"),
        ("validation", "evaluate.episodes=16384"),
        ("pretrain", "collect.num_episodes=20000"),
        ("compare", f"seeds={list(range(40))}"),
        ("grid", "grid.axes={finetune.regulariser.mi_weight: [0.1, 0.2, 0.3], discover.num_modes: [2, 3, 4, 5, 6]}"),
    ],
)
def test_memory_grows_with_what_it_holds(stage: str, setting: str) -> None:
    before, after = (estimate_mem_mb(config, stage, threads=1, simulator=NATIVE) for config in (read(), read(setting)))
    assert after > before


def test_measured_growth_is_covered() -> None:
    for stage, setting, took_mb in (
        ("finetune", "finetune.num_envs=16384", 1523),
        ("evaluate", "evaluate={episodes: 16384, num_envs: 16384}", 1104),
        ("discover", "discover.hindsight_episodes=16384", 554),
    ):
        assert estimate_mem_mb(read(setting), stage, threads=1, simulator=NATIVE) > took_mb + 200


@pytest.mark.parametrize(
    ("stage", "setting"),
    [
        ("collect", "collect.num_episodes=100000"),
        ("pretrain", "pretrain.iterations=100000"),
        ("discover", "discover.teaching.steps=100000"),
        ("discover", "discover={form: published, warmup_iterations: 1000}"),
        ("finetune", "finetune.iterations=1000"),
        ("evaluate", "evaluate.episodes=1000000"),
        ("curve", "evaluate.episodes=1000000"),
        ("validation", "evaluate.episodes=1000000"),
    ],
)
def test_time_grows_with_the_work_and_falls_with_cores(stage: str, setting: str) -> None:
    long = estimate_minutes(read(setting), stage, threads=1, simulator="ManiSkill")
    assert long > estimate_minutes(read(), stage, threads=1, simulator="ManiSkill")
    assert long > estimate_minutes(read(setting), stage, threads=8, simulator="ManiSkill") >= 10


def test_workers_of_a_simulator_count_and_readers_have_none() -> None:
    config = read(task="PushT")
    one, eight = (estimate_mem_mb(config, "finetune", threads=n, simulator="ManiSkill") for n in (1, 8))
    assert eight - one > 7 * 400
    assert estimate_mem_mb(config, "finetune", threads=8, simulator=NATIVE) < one
    for stage in READERS:
        assert estimate_mem_mb(config, stage, threads=1, simulator="ManiSkill") < 1500


def test_a_residual_decides_at_every_control_step() -> None:
    """`res` keeps `n_action_steps` times the decisions, and learns from as many."""
    config = read("finetune.num_envs=16384", "finetune.ppo.epochs=20")
    for estimate in (estimate_mem_mb, estimate_minutes):
        chunks, steps = (
            estimate(config, "finetune", threads=1, simulator=NATIVE, method=f"{family}-bmd")
            for family in ("dppo", "res")
        )
        assert steps > 2 * chunks


def test_readers_count_the_policy_with_codes_and_a_pool_every_base() -> None:
    def count(stage: str, *assignments: str) -> float:
        config = read(f"seeds={list(range(1000))}", "methods=[dppo, dppo-bmd]", *assignments)
        memory = estimate_mem_mb(config, stage, threads=1, simulator=NATIVE) / resources.MEMORY_MARGIN
        return (memory - resources.SCHEDULER_MB - resources.PROCESS_MB) / resources.EVALUATION_MB

    assert count("summarise") == pytest.approx(4000, abs=100)
    assert count("summarise", "discover.form=published") == pytest.approx(3000, abs=100)
    assert count("pool", "pool.bases=[0, 1, 2]") == pytest.approx(12_000, abs=100)


def test_a_slow_simulator_gets_its_time() -> None:
    """MuJoCo's steps take four times as long as ManiSkill's (docs/results/archive/kitchen.md)."""
    config = read(task="Kitchen")
    kitchen = estimate_minutes(config, "finetune", threads=1, simulator=get_entry("Kitchen").simulator)
    episodes = config.finetune.iterations * config.finetune.num_envs
    assert kitchen * 60 > 4 * episodes * 280 / 370
    assert kitchen > 3 * estimate_minutes(config, "finetune", threads=1, simulator="ManiSkill")
    assert kitchen == estimate_minutes(config, "finetune", threads=1, simulator="one of your own")
    assert {entry.simulator for entry in list_entries()} == set(resources.STEPS_PER_S)


def test_validation_counts_everything_that_is_played() -> None:
    """The base policy twice, then every seed's codes, undisturbed and under each of four disturbances."""
    config = read("seeds=[0,1,2]", "evaluate.episodes=100", "evaluate.num_envs=64", "task.env.horizon=50")
    assert resources.validated_steps(config, 50) == 128 * 50 * (2 + 3 * 5)
    two = "validation.disturbances={slow: {horizon: 300}, late: {disturbance: {action_delay: 1}}}"
    longer = read("seeds=[0]", "evaluate.episodes=64", two)
    assert resources.validated_steps(longer, 100) == 64 * (100 * (2 + 2) + 300)


COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
PLAYING = {"open_context", "open_env", "make_pool", "open_expert_player", "open_agent_player"}
"""What stages call to get episodes played."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_plays_or_goes_on_is_counted_as_such(command: str) -> None:
    reached = list_definitions(command, "bmd_pipeline.tasks.gaussian_mixture") if command in hashing.ENTRIES else ()
    assert (command in resources.PLAYERS) == bool({name for _, name in reached} & PLAYING)
    parameters = {parameter.name for parameter in COMMANDS[command].params}
    assert (command in RESUMABLE) == ("max_minutes" in parameters)


@pytest.mark.parametrize("stage", resources.PLAYERS)
@pytest.mark.parametrize("workers", [1, 4])
def test_the_simulator_of_all_that_play_is_counted(stage: str, workers: int) -> None:
    one_process = stage == "film" or workers == 1
    least = resources.SIMULATOR_MB if one_process else workers * resources.WORKER_MB - resources.PROCESS_MB
    native, simulated = (
        estimate_mem_mb(read(task="Reach"), stage, threads=workers, simulator=simulator)
        for simulator in (NATIVE, "ManiSkill")
    )
    assert simulated - native > least / 2


def test_the_machine_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = resources.free_memory_mb()
    assert here is None or here > 100
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert resources.free_memory_mb() == 2
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.free_memory_mb() != 2
    assert resources.free_disk_mb(tmp_path) > 0
