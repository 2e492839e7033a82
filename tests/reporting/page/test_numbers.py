"""Numbers as people read them."""

from __future__ import annotations

import pytest

from bmd_pipeline.reporting.page import numbers


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
    assert plain(numbers.percent(share, digits)) == text


def test_ranges() -> None:
    assert plain(numbers.percent_range(0.886, 0.9993)) == "89–99.9 %"
    assert plain(numbers.percent_range(0.97, 0.97)) == "97 %"
    assert plain(numbers.number_range(1, 4)) == "1.0–4.0"
    assert plain(numbers.number_range(4, 4)) == "4.0"


def test_signs_are_real_and_nought_has_none() -> None:
    assert numbers.fixed(-0.5) == "−0.50"
    assert numbers.fixed(-0.001) == "0.00"
    assert numbers.signed(0.5, 1) == "+0.5"
    assert numbers.signed(-0.5, 1) == "−0.5"
    assert numbers.signed(0.0) == "0.00"
    assert numbers.signed(0.001) == "0.00"
    assert numbers.interval(-0.1, 0.25, 0, 100) == "[−10, 25]"


def test_counts_and_lists() -> None:
    assert plain(numbers.grouped(21504)) == "21 504"
    assert numbers.counted(1, "seed") == "1 seed"
    assert numbers.counted(3, "seed") == "3 seeds"
    assert numbers.listed(["a"]) == "a"
    assert numbers.listed(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(("p", "text"), [(0.0004, "p < .001"), (0.034, "p = .034"), (1.0, "p = 1"), (0.9999, "p = 1")])
def test_p_values(p: float, text: str) -> None:
    assert numbers.p_value(p) == text


@pytest.mark.parametrize(("seconds", "text"), [(48, "48 s"), (720, "12 min"), (11100, "3 h 05 min")])
def test_durations(seconds: float, text: str) -> None:
    assert plain(numbers.duration(seconds)) == text
