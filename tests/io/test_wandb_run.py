"""The external tracker: the same numbers, one run per job, and no way to stop a run."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
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

    def __init__(self, fail: str = "", hang: str = "") -> None:
        super().__init__("wandb")
        self.fail, self.hang = fail, hang
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False
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
            self.awake.wait(30)
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
    started = time.monotonic()
    messages = track(tmp_path / "m", steps=50)  # more than may wait
    fake.awake.set()
    assert time.monotonic() - started < 5.0
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
def test_the_real_one_goes_on_in_the_run_of_the_first_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for first in (0, 2):
        with Tracker(tmp_path / "m", "wandb", name="job", group="group", resume_step=first) as tracker:
            tracker.log(first + 1, {"loss": 1.0})
    # Of the folders' names the second may end in "-1", where both begin in the same second.
    runs = [path.name for path in (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")]
    assert runs == [f"run-{make_run_id('job', 'group', {})}.wandb"] * 2
