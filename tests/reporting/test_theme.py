"""The colours of pages."""

from __future__ import annotations

from bmd_pipeline.reporting.figures import BLUE, mode_colours
from bmd_pipeline.reporting.report import COLOURS, colour_sheet


def test_sheet_has_the_colours_of_page_and_figures_and_no_names() -> None:
    sheet = colour_sheet(["pretrained", "dsrl", "</style><b>"], ["left", "right"])
    assert f"--paper: {COLOURS['paper']};" in sheet
    assert f"--policy-1: {BLUE};" in sheet
    assert f"--mode-0: {mode_colours(['left', 'right'])['left']};" in sheet
    assert "<" not in sheet
    assert "dsrl" not in sheet
