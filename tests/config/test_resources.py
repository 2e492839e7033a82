"""What jobs ask a cluster for, against what they were seen to take."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.main import get_command

from bmd_pipeline.cli.main import app
from bmd_pipeline.config import hashing, resources
from bmd_pipeline.config.hashing import list_definitions
from bmd_pipeline.config.resources import ASKED, PLAYERS, READERS, RESUMABLE, list_demands
from bmd_pipeline.tasks.registry import get_entry

NATIVE = resources.NATIVE
ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\w+) \| (\w+) \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)
MEASURED = [
    (task, stage, *map(int, numbers))
    for task, stage, *numbers in ROW.findall((ROOT / "docs/results/resources.md").read_text())
]


def test_what_was_measured_covers_every_stage_that_computes() -> None:
    assert len(MEASURED) == 18
    assert {stage for _, stage, *_ in MEASURED} >= {*RESUMABLE, "collect", "evaluate"}


@pytest.mark.parametrize(("task", "stage", "threads", "took_mb", "took_s"), MEASURED)
def test_what_was_measured_fits_into_what_is_asked(
    task: str, stage: str, threads: int, took_mb: int, took_s: int
) -> None:
    memory, minutes = list_demands(stage, threads=threads, simulator=get_entry(task).simulator)
    assert took_mb + 200 < memory  # two Snakemakes run around it
    assert 4 * took_s < 60 * minutes  # cores differ


def test_the_documented_table_is_what_is_asked_for() -> None:
    text = (ROOT / "docs/cluster.md").read_text()
    found = {}
    for stages, *numbers in re.findall(r"^\| (`.+`) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE):
        native, native_minutes, simulated, simulated_minutes = map(int, numbers)
        asked = (native, native_minutes), (simulated, simulated_minutes)
        found |= dict.fromkeys(re.findall(r"\w+", stages), asked)
    assert found == ASKED


@pytest.mark.parametrize("stage", ASKED)
def test_workers_of_a_simulator_count_and_readers_have_none(stage: str) -> None:
    memory = {
        (simulator, threads): list_demands(stage, threads=threads, simulator=simulator)[0]
        for simulator in (NATIVE, "ManiSkill", "one of your own")
        for threads in (1, 8)
    }
    assert memory[NATIVE, 1] == memory[NATIVE, 8]
    assert memory["ManiSkill", 8] - memory["ManiSkill", 1] == (7 * 400 if stage in PLAYERS else 0)
    assert memory["ManiSkill", 8] == memory["one of your own", 8]


def test_a_device_asks_for_more() -> None:
    assert list_demands("evaluate", threads=1, simulator=NATIVE, on_device=True) == (16_000, 240)
    assert list_demands("finetune", threads=1, simulator=NATIVE, on_device=True) == (16_000, 360)


def test_every_stage_asks_for_something() -> None:
    assert ASKED.keys() == {*PLAYERS, *READERS}


COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
PLAYING = {"open_context", "open_env", "make_pool", "open_expert_player", "open_agent_player"}
"""What stages call to get episodes played."""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_plays_or_goes_on_is_counted_as_such(command: str) -> None:
    reached = list_definitions(command, "bmd_pipeline.tasks.gaussian_mixture") if command in hashing.ENTRIES else ()
    assert (command in PLAYERS) == bool({name for _, name in reached} & PLAYING)
    parameters = {parameter.name for parameter in COMMANDS[command].params}
    assert (command in RESUMABLE) == ("max_minutes" in parameters)


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


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 3), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 3), ("", 3)]
)
def test_cores_are_those_that_this_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    assert 1 <= resources.usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 5, 7})
    assert resources.usable_cores() == 3  # no control group says anything
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert resources.usable_cores() == cores
