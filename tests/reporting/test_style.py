"""The style of figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bmd_pipeline.methods import METHODS
from bmd_pipeline.reporting.figures import house_style, method_style, mode_colours, save_figure


def as_seen_without_green_cones(colour: str) -> np.ndarray:
    """Linear RGB under deuteranopia (Machado et al. 2009, severity 1)."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    return np.array(matrix) @ linear


@pytest.mark.parametrize("count", [2, 4, 6, 24])
def test_modes_can_be_told_apart(count: int) -> None:
    colours = mode_colours([f"mode {i}" for i in range(count)])
    assert len(set(colours.values())) == count
    if count <= 6:
        for one, other in itertools.combinations(colours.values(), 2):
            gap = np.abs(as_seen_without_green_cones(one) - as_seen_without_green_cones(other)).max()
            assert gap > 0.08, (one, other)


def test_a_mode_keeps_its_colour() -> None:
    assert mode_colours(["a", "b"])["a"] == mode_colours(["a", "b", "c"])["a"]


def test_methods_differ_without_colour() -> None:
    marks = [(style.marker, style.filled) for style in map(method_style, ("pretrained", "dsrl", "dsrl-bmd"))]
    assert len(set(marks)) == 3
    assert method_style("dsrl").colour == method_style("dsrl-bmd").colour
    assert all(method_style(method) for method in METHODS)
    assert method_style("someones-own").colour not in {method_style(m).colour for m in METHODS}


def test_files_are_reproducible_and_settings_stay_local(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    contents = []
    for name in ("one", "two"):
        with house_style():
            figure = Figure(figsize=(2, 2))
            figure.add_subplot().plot([0, 1], [1, 0], label="line")
            paths = save_figure(figure, tmp_path / name)
        contents.append([path.read_bytes() for path in paths])
        assert [path.name for path in paths] == [f"{name}.png", f"{name}.svg"]
    assert contents[0] == contents[1]
    assert dict(mpl.rcParams) == before
    assert b"<dc:date>" not in contents[0][1]
