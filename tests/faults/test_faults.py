"""A few of each fault, in one file so that they share a laboratory; `make fault-test` tries many (see `campaign`)."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from . import trials, trust
from .lab import BY_NAME, KILLED, RESUMABLE, STAGES, Lab, describe

NAMES = [stage.name for stage in KILLED]
GO_ON = [stage.name for stage in RESUMABLE]
EVERY_STAGE = pytest.mark.parametrize("name", NAMES)
needs_mounts = pytest.mark.skipif(not trials.can_mount(), reason="only root may mount a small disk")


@EVERY_STAGE
def test_a_killed_stage_loses_nothing_or_itself(lab: Lab, name: str) -> None:
    trials.kill(lab, BY_NAME[name], random.Random(f"kill {name}"))
    trials.kill_often(lab, BY_NAME[name], random.Random(f"often {name}"), times=2)


@pytest.mark.parametrize(
    ("name", "by"),
    [(name, (signal.SIGTERM, signal.SIGINT)[index % 2]) for index, name in enumerate(NAMES)],
)
def test_a_signal_ends_a_stage_well(lab: Lab, name: str, by: signal.Signals) -> None:
    trials.ask(lab, BY_NAME[name], random.Random(f"ask {name}"), by)


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_time_limit_is_kept(lab: Lab, name: str) -> None:
    trials.run_in_slices(lab, BY_NAME[name])


def test_a_second_signal_does_not_wait(lab: Lab) -> None:
    stage = BY_NAME["pretrain"]
    project = lab.copy(stage)
    child = lab.start(project, stage.argv)
    trials.wait_for(lab, "on cpu with")
    for number in (signal.SIGTERM, signal.SIGTERM):
        os.kill(child, number)
    assert lab.wait() in (trials.STOPPED, -signal.SIGTERM)
    trials.require_finished(lab, project, stage, lab.run(project, stage))


@pytest.mark.parametrize(
    ("name", "kind"), [(name, list(trials.DAMAGES)[index % 3]) for index, name in enumerate(GO_ON)]
)
def test_damaged_progress_is_never_used(lab: Lab, name: str, kind: str) -> None:
    trials.damage_progress(lab, BY_NAME[name], random.Random(f"{kind} {name}"), kind)


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        (name, path, list(trials.DAMAGES)[index % 3])
        for name, paths in trials.INPUTS.items()
        for index, path in enumerate(paths)
    ],
    ids=lambda value: value.name if isinstance(value, Path) else None,
)
def test_damaged_inputs_are_refused(lab: Lab, name: str, path: Path, kind: str) -> None:
    trials.damage_input(lab, BY_NAME[name], random.Random(f"{kind} {path}"), path, kind)


@needs_mounts
@pytest.mark.parametrize("name", ["collect", "discover", "evaluate"])
def test_a_full_disk_is_named_and_loses_nothing(lab: Lab, name: str) -> None:
    trials.fill_disk(lab, BY_NAME[name], random.Random(f"full {name}"))


@needs_mounts
@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_a_read_only_disk_is_named(lab: Lab, name: str) -> None:
    trials.forbid_writing(lab, BY_NAME[name])


@EVERY_STAGE
def test_a_file_in_a_folders_place_is_named(lab: Lab, name: str) -> None:
    trials.block_folder(lab, BY_NAME[name])


@pytest.mark.parametrize("name", ["pretrain", "discover"])
def test_clocks_may_jump(lab: Lab, name: str) -> None:
    trials.turn_clock_back(lab, BY_NAME[name], random.Random(f"clock {name}"))


def test_a_lost_worker_loses_nothing(lab: Lab) -> None:
    trials.lose_worker(lab)


def test_nothing_passes_for_what_it_is_not_and_nobodys_file_is_lost(lab: Lab) -> None:
    """Each fault once, on one of its targets; the campaign (`make fault-test`) tries it on all."""
    rng = random.Random("trust")
    tries = trust.list_tries(lab, rng)
    rng.shuffle(tries)
    for fault, target, trial in {one[0]: one for one in tries}.values():
        assert trial() in ("refused", "left alone", "marked", "came too late", "named"), f"{fault}, {target}"


def test_a_second_pipeline_writes_the_same_bytes(lab: Lab, tmp_path: Path) -> None:
    lab.run_all(tmp_path / "again")
    for stage in STAGES:
        assert describe(tmp_path / "again", stage) == lab.reference[stage.name], stage.name


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert list(trials.STATE) == GO_ON
