"""The theme of pages: colours of the figures, and readable in the dark."""

from __future__ import annotations

import itertools

import pytest

from bmd_pipeline.methods import METHODS
from bmd_pipeline.reporting.figures import BLACK, BLUE, method_style, mode_colours
from bmd_pipeline.reporting.report import DARK, LIGHT, colour_sheet, contrast, on_dark


def test_contrast_matches_known_values() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("count", [2, 6, 24])
def test_every_colour_stands_out_in_the_dark_and_stays_itself(count: int) -> None:
    colours = [method_style(name).colour for name in METHODS]
    modes = [on_dark(colour) for colour in mode_colours([str(i) for i in range(count)]).values()]
    for colour in [*map(on_dark, colours), *modes]:
        assert contrast(colour, DARK["paper"]) >= 4.5
    assert all(one != other for one, other in itertools.pairwise(modes))
    assert on_dark(BLACK) == DARK["ink"]
    assert on_dark("#56b4e9") == "#56b4e9"  # bright enough already


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_texts_can_be_read(palette: dict[str, str]) -> None:
    for tone in ("ink", "soft", "good", "bad", "open"):
        assert contrast(palette[tone], palette["paper"]) >= 4.5, tone
        assert contrast(palette[tone], palette["wash"]) >= 4.5, tone


def test_sheet_has_the_colours_of_the_figures_and_no_names() -> None:
    sheet = colour_sheet(["pretrained", "dsrl", "</style><b>"], ["left", "right"])
    assert f"--policy-1: {BLUE};" in sheet
    assert f"--policy-1: {on_dark(BLUE)};" in sheet
    assert f"--mode-0: {mode_colours(['left', 'right'])['left']};" in sheet
    assert "<" not in sheet
    drawn = colour_sheet([], [], ["fill: var(--ink-0072b2); stroke: var(--ink-222222)"])
    assert f"--ink-0072b2: {BLUE};" in drawn
    assert f"--ink-0072b2: {on_dark(BLUE)};" in drawn
    assert "--ink-222222: var(--ink);" in drawn
    assert "dsrl" not in sheet
