"""Formatting of numbers."""

from __future__ import annotations

import pytest

from bmd_pipeline.reporting import narrative


def plain(text: str) -> str:
    """Without the special spaces and joiners, which this file is not about."""
    return text.replace("\u202f", " ").replace("\u2060", "")


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.972, 1, "97.2 %"),
        (1.0, 0, "100 %"),
        (0.9996, 0, "99 %"),  # not all of them
        (0.99996, 1, "99.9 %"),
        (0.0001, 0, "1 %"),  # not none of them
        (0.0, 1, "0.0 %"),
    ],
)
def test_percents_never_round_to_all_or_none(share: float, digits: int, text: str) -> None:
    assert plain(narrative.percent(share, digits)) == text


def test_ranges() -> None:
    assert plain(narrative.percent_range(0.886, 0.9993)) == "89–99.9 %"
    assert plain(narrative.percent_range(0.97, 0.97)) == "97 %"
    assert plain(narrative.number_range(1, 4)) == "1.0–4.0"
    assert plain(narrative.number_range(4, 4)) == "4.0"


def test_signs_are_real_and_nought_has_none() -> None:
    assert narrative.fixed(-0.5) == "−0.50"
    assert narrative.fixed(-0.001) == "0.00"
    assert narrative.signed(0.5, 1) == "+0.5"
    assert narrative.signed(-0.5, 1) == "−0.5"
    assert narrative.signed(0.0) == "0.00"
    assert narrative.signed(0.001) == "0.00"
    assert narrative.interval(-0.1, 0.25, 0, 100) == "[−10, 25]"


def test_counts_and_lists() -> None:
    assert plain(narrative.grouped(21504)) == "21 504"
    assert narrative.counted(1, "seed") == "1 seed"
    assert narrative.counted(3, "seed") == "3 seeds"
    assert narrative.listed(["a"]) == "a"
    assert narrative.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(("p", "text"), [(0.0004, "p < .001"), (0.034, "p = .034"), (1.0, "p = 1"), (0.9999, "p = 1")])
def test_p_values(p: float, text: str) -> None:
    assert narrative.p_value(p) == text


@pytest.mark.parametrize(("seconds", "text"), [(48, "48 s"), (720, "12 min"), (11100, "3 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert plain(narrative.duration(seconds)) == text
