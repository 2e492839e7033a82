"""The external tracker: the same numbers, one run per job, and no way to stop a run."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.io import logger
from bmd_pipeline.io.logger import Tracker, make_run_id


class FakeWandb(types.ModuleType):
    """Stands in for the real one; records, and fails or hangs where told."""

    def __init__(self, fail: str = "", hang: str = "", folder: Path = Path("nowhere"), resumed: bool = False) -> None:
        super().__init__("wandb")
        self.fail, self.hang = fail, hang
        self.sync_dir, self.resumed = str(folder), resumed
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False
        self.asleep = False
        self.awake = threading.Event()

    def Settings(self, **values: Any) -> dict[str, Any]:  # noqa: N802 - wandb's name
        return values

    def init(self, **settings: Any) -> FakeWandb:
        self._act("init", RuntimeError("no network\nlong trace"))
        self.settings = settings
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._act("log", OSError("disk full"))
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self._act("finish", RuntimeError("gone"))
        self.finished = True

    def _act(self, name: str, error: Exception) -> None:
        if self.hang == name:
            self.asleep = True
            self.awake.wait(30)
            self.asleep = False
        if self.fail == name:
            raise error


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield
    os.environ.pop("WANDB_MODE", None)


def track(path: Path, steps: int = 2, **options: Any) -> list[str]:
    """Logs some steps; returns the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Tracker(path, "wandb", **options) as tracker:
            for step in range(1, steps + 1):
                tracker.log(step, {"loss": float(step)})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(1, steps + 1))
    return [str(warning.message) for warning in caught]


@pytest.mark.usefixtures("_offline")
def test_the_same_numbers_go_there_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert track(tmp_path / "m", name="run", group="group", config={"a": 1}) == []
    assert os.environ["WANDB_MODE"] == "offline"
    assert fake.logged == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]
    assert fake.finished
    assert (fake.settings["name"], fake.settings["group"], fake.settings["resume"]) == ("run", "group", "allow")


def leave_run(folder: Path, run_id: str) -> Path:
    """A folder as wandb leaves it offline."""
    folder.mkdir(parents=True)
    (folder / f"run-{run_id}.wandb").write_text("reports")
    return folder


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("resumed", [False, True])
def test_what_wandb_does_not_go_on_with_is_told_from_the_start_and_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    run_id = make_run_id((tmp_path / "m").as_posix(), "", {})
    folder = leave_run(tmp_path / "wandb" / f"offline-run-2-{run_id}", run_id)
    earlier = [
        leave_run(tmp_path / "wandb" / f"offline-run-{name}", run_id) for name in (f"1-{run_id}", f"2-{run_id}-1")
    ]
    others = [
        leave_run(tmp_path / "wandb" / f"offline-run-1-{'0' * 24}", "0" * 24),  # another job's
        leave_run(tmp_path / "wandb" / f"run-1-{run_id}", run_id),  # uploaded while it ran
        leave_run(tmp_path / "wandb" / f"offline-run-1-{run_id}-notes", "mine"),  # somebody's
    ]
    with Tracker(tmp_path / "m") as tracker:
        for step in (1, 2, 3):
            tracker.log(step, {"loss": float(step), "bad": math.inf})
    fake = FakeWandb(folder=folder, resumed=resumed)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Tracker(tmp_path / "m", "wandb", resume_step=2) as tracker:
        tracker.log(3, {"loss": 4.0})
    assert fake.settings["id"] == run_id
    told = [(step, metrics["loss"]) for step, metrics in fake.logged]
    assert told == [(3, 4.0)] if resumed else told == [(1, 1.0), (2, 2.0), (3, 4.0)]
    if not resumed:
        assert fake.logged[0][1].keys() == {"loss", "bad"}
        assert math.isnan(fake.logged[0][1]["bad"])
    assert [path.exists() for path in earlier] == [resumed, resumed]
    assert all(path.exists() for path in (folder, *others))


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("fail", ["init", "log", "finish"])
def test_a_dead_tracker_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(fail=fail))
    (message,) = track(tmp_path / "m", steps=50)
    assert message.startswith("wandb is off for this run: ")
    assert "\n" not in message


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("hang", ["init", "log", "finish"])
def test_an_unreachable_tracker_costs_a_bounded_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hang: str
) -> None:
    fake = FakeWandb(hang=hang)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(logger, "WAITING_REPORTS", 10)
    monkeypatch.setattr(logger, "CLOSE_SECONDS", 0.1)
    messages = track(tmp_path / "m", steps=50)  # more than may wait
    assert fake.asleep  # still without an answer
    fake.awake.set()
    assert messages == ["wandb is off for this run: no answer within 0.1 s"]


def test_attempts_at_a_job_share_a_run_and_jobs_do_not() -> None:
    one = make_run_id("results/Reach/dsrl/seed0", "Reach", {"iterations": 3})
    assert one == make_run_id("results/Reach/dsrl/seed0", "Reach", {"iterations": 3})
    others = {
        make_run_id("results/Reach/dsrl/seed1", "Reach", {"iterations": 3}),
        make_run_id("results/Reach/dsrl/seed0", "group", {"iterations": 3}),
        make_run_id("results/Reach/dsrl/seed0", "Reach", {"iterations": 4}),
    }
    assert len(others | {one}) == 4


@pytest.mark.usefixtures("_offline")
def test_the_real_one_leaves_one_run_of_all_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for first in (0, 2):
        with Tracker(tmp_path / "m", "wandb", name="job", group="group", resume_step=first) as tracker:
            tracker.log(first + 1, {"loss": 1.0})
    runs = [path.name for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")]
    assert runs == [f"run-{make_run_id((tmp_path / 'm').as_posix(), 'group', {})}.wandb"]
