"""What stages print, and when."""

from __future__ import annotations

import errno
import io

import pytest

from bmd_pipeline.stages.console import Reporter, format_fields, format_rate, format_seconds


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_mode_follows_the_stream() -> None:
    assert Reporter(stream=io.StringIO()).mode == "plain"
    assert Reporter(stream=Terminal()).mode == "normal"
    assert Reporter("quiet", stream=Terminal()).mode == "quiet"


def test_plain_progress_speaks_every_ten_seconds_or_ten_percent() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter("plain", stream=stream, clock=clock).progress("pretrain", 1000) as progress:
        for _ in range(20):  # 0.5 s and 1 % each: 10 % comes after 5 s
            clock.now += 0.5
            progress.advance(10, loss=0.03125)
        assert stream.getvalue().splitlines() == [
            "pretrain: 100/1000 (10%), 20.0/s, 45 s left, loss 0.03125",
            "pretrain: 200/1000 (20%), 20.0/s, 40 s left, loss 0.03125",
        ]
        clock.now += 10  # slow now: 10 s come first
        progress.advance(1)
    assert stream.getvalue().splitlines()[-1].startswith("pretrain: 201/1000 (20%), 10.1/s, 1 min 20 s left")


def test_plain_progress_does_not_chatter_and_always_says_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter("plain", stream=stream, clock=clock).progress("quick", 100) as progress:
        for _ in range(100):
            clock.now += 0.001
            progress.advance()
    assert stream.getvalue() == "quick: 100/100 (100%), 1000.0/s, took 0 s\n"


def test_a_resumed_count_does_not_flatter_the_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with Reporter("plain", stream=stream, clock=clock).progress("resumed", 1000, done=900) as progress:
        clock.now += 10
        progress.advance(10)
    assert stream.getvalue() == "resumed: 910/1000 (91%), 1.0/s, 1 min 30 s left\n"


def test_plain_lines_carry_the_label_and_no_control_codes() -> None:
    stream = io.StringIO()
    reporter = Reporter("plain", label="finetune PushT 0", stream=stream)
    reporter.log("[bold]kept as it is[/bold]")
    reporter.warn("no modes found")
    assert stream.getvalue() == (
        "[finetune PushT 0] [bold]kept as it is[/bold]\n[finetune PushT 0] warning: no modes found\n"
    )
    assert "\x1b" not in stream.getvalue()


def test_names_that_a_terminal_would_obey_are_shown_as_escapes() -> None:
    stream = io.StringIO()
    Reporter("plain", stream=stream).log("data/x\x1b]0;owned\x07\u202e λ.zarr: 3.1\u202f%")
    assert stream.getvalue() == "data/x\\x1b]0;owned\\x07\\u202e λ.zarr: 3.1\u202f%\n"


def test_quiet_shows_warnings_only() -> None:
    stream = io.StringIO()
    reporter = Reporter("quiet", stream=stream)
    reporter.log("hidden")
    with reporter.progress("hidden", 2) as progress:
        progress.advance(2, loss=1.0)
    reporter.warn("shown")
    assert stream.getvalue() == "warning: shown\n"


def test_a_terminal_gets_bars_and_text_as_it_is() -> None:
    stream = Terminal()
    reporter = Reporter(stream=stream)
    reporter.log("values [0, 1]")
    with reporter.progress("pretrain [x]", 10) as progress:
        progress.advance(10, loss=0.5)
    assert "values [0, 1]" in stream.getvalue()
    assert "pretrain [x]" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_stream_that_is_gone_stops_nothing(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the terminal was closed")

    stream = kind()
    reporter = Reporter(stream=stream)
    with reporter.progress("train", 100) as progress:
        monkeypatch.setattr(stream, "write", fail)
        monkeypatch.setattr(stream, "flush", fail)
        reporter.log("something")
        progress.advance(100)
    reporter.warn("something else")
    assert reporter.warnings == ["something else"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (48.4, "48 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (-1, "0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_rates_and_fields() -> None:
    assert format_rate(0, 10, 5.0) == ""
    assert format_rate(2, 10, 10.0) == "5.0 s each, 40 s left"
    assert format_fields({"success": 0.123456, "kept": 3, "name": "x"}) == "success 0.1235, kept 3, name x"


def test_a_warning_with_examples_is_said_once_also_after_a_resume() -> None:
    stream = io.StringIO()
    reporter = Reporter("quiet", stream=stream)
    reporter.warn("a thing happens", "at step 3")
    reporter.warn("a thing happens", "at step 4")
    assert reporter.warnings == ["a thing happens (first: at step 3)"]
    resumed = Reporter("quiet", stream=stream)
    resumed.recall(reporter.warnings)
    resumed.warn("a thing happens", "at step 5")
    assert resumed.warnings == reporter.warnings
    assert stream.getvalue() == "warning: a thing happens (first: at step 3)\n"
