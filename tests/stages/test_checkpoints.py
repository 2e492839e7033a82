"""When progress is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.errors import SimulationError
from bmd_pipeline.io.layout import Layout
from bmd_pipeline.stages.checkpoints import Checkpoints, Snapshot, make_identity
from bmd_pipeline.stages.console import Stop, Stopped


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pack(step: int) -> Snapshot:
    return {"w": torch.full((2,), float(step))}, {"seen": step}


def open_checkpoints(output: Path, clock: Clock, stop: Stop | None = None, **settings: Any) -> Checkpoints:
    return Checkpoints(output, "what", stop or Stop(), **({"minutes": 10.0} | settings), clock=clock)


def saved_step(output: Path) -> int | None:
    with open_checkpoints(output, Clock()) as checkpoints:
        saved = checkpoints.load()
    return None if saved is None else int(saved[1]["step"])


@pytest.mark.parametrize(("minutes", "expected"), [(10.0, 4), (0.0, 5)])
def test_it_saves_by_time(tmp_path: Path, minutes: float, expected: int) -> None:
    clock = Clock()
    with open_checkpoints(tmp_path, clock, minutes=minutes) as checkpoints:
        for step in range(6):
            checkpoints.save_if_due(step, lambda step=step: pack(step))  # type: ignore[misc]
            clock.now += 301.0
    assert saved_step(tmp_path) == expected


def test_a_clock_that_goes_back_breaks_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with open_checkpoints(tmp_path, clock) as checkpoints:
        for step, now in enumerate((0.0, -5000.0, -4500.0, 700.0)):
            clock.now = now
            checkpoints.save_if_due(step, lambda step=step: pack(step))  # type: ignore[misc]
    assert saved_step(tmp_path) == 3


def test_a_stop_saves_first(tmp_path: Path) -> None:
    clock = Clock()
    stop = Stop(1.0, clock=clock)
    with pytest.raises(Stopped), open_checkpoints(tmp_path, clock, stop) as checkpoints:  # noqa: PT012
        for step in range(9):
            clock.now = 20.0 * step
            checkpoints.save_if_due(step, lambda step=step: pack(step))  # type: ignore[misc]
    assert saved_step(tmp_path) == 3


@pytest.mark.parametrize("error", [Stopped("SIGTERM"), SimulationError("a worker died")])
def test_between_two_points_the_former_is_saved(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), open_checkpoints(tmp_path, Clock()) as checkpoints:  # noqa: PT012
        checkpoints.save_if_due(1, lambda: pack(1))
        checkpoints.save_if_due(2, lambda: pack(2))
        raise error
    assert saved_step(tmp_path) == 2


def test_other_failures_save_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_checkpoints(tmp_path, Clock()) as checkpoints:  # noqa: PT012
        checkpoints.save_if_due(1, lambda: pack(1))
        raise ZeroDivisionError
    assert saved_step(tmp_path) is None


def test_nothing_is_saved_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoints(tmp_path, Clock()) as checkpoints:
        checkpoints.save_if_due(4, lambda: pack(4), save=True)
    with open_checkpoints(tmp_path, Clock(), minutes=0.0) as checkpoints:
        assert checkpoints.load() is not None
        checkpoints.save_if_due(4, lambda: pytest.fail("it has not moved since"))


def test_a_finished_stage_leaves_nothing(tmp_path: Path) -> None:
    with open_checkpoints(tmp_path, Clock()) as checkpoints:
        checkpoints.save_if_due(1, lambda: pack(1), save=True)
        checkpoints.discard()
    assert not Layout.state(tmp_path).exists()


def test_half_written_files_of_a_killed_job_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".policy.safetensors.0123456789abcdef.tmp").write_text("half")
    (tmp_path / ".notes.2024.tmp").write_text("somebody's")
    (tmp_path / "policy.json").write_text("{}")
    with open_checkpoints(tmp_path, Clock()):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".notes.2024.tmp", "policy.json", "checkpoints"}


def test_identity_depends_on_settings_code_and_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(gamma: float = 0.99, **parts: Any) -> str:
        config = RunConfig.model_validate({"task": {"name": "GaussianMixture"}, "finetune": {"ppo": {"gamma": gamma}}})
        return make_identity(config, "finetune", method="dsrl", **({"seed": 0, "policy": "abc"} | parts))

    assert identity() == identity()
    others = {identity(gamma=0.9), identity(seed=1), identity(policy="abd")}
    monkeypatch.setattr("bmd_pipeline.stages.checkpoints.source_hash", lambda *_: "edited")
    assert len({*others, identity()}) == 4
