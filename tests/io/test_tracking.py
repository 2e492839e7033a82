import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.logger import Tracker


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    with Tracker(path) as tracker:
        tracker.log(5, {"loss": 0.5, "bad": math.nan})
        (line,) = lines(path)
    times = {"wall_s": 0, "cpu_seconds": 0}
    assert {**line, **times} == {"step": 5, **times, "loss": 0.5, "bad": None}


def test_a_fresh_run_starts_the_file_over(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for loss in (1.0, 2.0):
        with Tracker(path) as tracker:
            tracker.log(1, {"loss": loss})
    assert [line["loss"] for line in lines(path)] == [2.0]


def test_resume_drops_what_will_be_done_again(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with Tracker(path) as tracker:
        for step in (10, 20, 30):
            tracker.log(step, {"loss": step})
    path.write_text(path.read_text().replace('"wall_s": 0.0', '"wall_s": 7.0') + '{"step": 4')  # killed mid-line
    with Tracker(path, resume_step=20) as tracker:
        tracker.log(30, {"loss": 31})
    kept = lines(path)
    assert [(line["step"], line["loss"]) for line in kept] == [(10, 10), (20, 20), (30, 31)]
    for time in ("wall_s", "cpu_seconds"):
        assert kept[2][time] >= kept[1][time]  # time goes on where the interrupted run stopped


@pytest.mark.parametrize(
    "line", ['{"step": 1}', '{"step": 1, "wall_s": "x", "cpu_seconds": 0}', '{"step": 1e999}', "[1]"]
)
def test_what_follows_a_line_that_no_tracker_wrote_is_dropped(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m"
    with Tracker(path) as tracker:
        tracker.log(10, {"loss": 1.0})
    path.write_text(f"{path.read_text()}{line}\n")
    with Tracker(path, resume_step=20) as tracker:
        tracker.log(20, {"loss": 2.0})
    assert [line["step"] for line in lines(path)] == [10, 20]


def test_a_run_that_is_killed_while_it_reopens_the_file_loses_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    with Tracker(path) as tracker:
        tracker.log(10, {"loss": 1.0})
    before = path.read_bytes()

    def kill(*_: object) -> None:
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", kill)
    with pytest.raises(KeyboardInterrupt):
        Tracker(path, resume_step=10)
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_even_when_the_file_closes(tmp_path: Path) -> None:
    path = tmp_path / "m"
    tracker = Tracker(path)
    tracker.close()
    tracker._file = Path("/dev/full").open("a")  # noqa: SIM115 - the tracker closes it
    for action in (lambda: tracker.log(1, {"loss": 1.0}), tracker.close):
        with pytest.raises(ArtifactError, match=f"{path} can't be written: No space left"):
            action()


def read_events(folder: Path) -> list[tuple[int, float]]:
    """What TensorBoard's own reader shows of a folder's loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    path, settings = tmp_path / "m", {"seed": 3}
    with Tracker(path, "tensorboard", config=settings) as tracker:
        for step in (0, 10, 20):
            tracker.log(step, {"loss": step})
    assert read_events(tmp_path / "tensorboard") == [(0, 0), (10, 10), (20, 20)]
    with Tracker(path, "tensorboard", config=settings, resume_step=10) as tracker:
        tracker.log(20, {"loss": 21})
    assert read_events(tmp_path / "tensorboard") == [(0, 0), (10, 10), (20, 21)]


def test_tensorboard_that_fails_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="tensorboard is off for this run: .*tensorboard"):
        tracker = Tracker(tmp_path / "m", "tensorboard")
    with warnings.catch_warnings(action="error"):
        tracker.log(1, {"loss": 1.0})
        tracker.close()
    assert len(lines(tmp_path / "m")) == 1
    assert (tmp_path / "tensorboard").read_text() == "in the way"
