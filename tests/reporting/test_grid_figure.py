"""What the figure of a grid shows, looked up in its own parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.metrics.schemas import Cell, Grid, load_document
from bmd_pipeline.reporting.figures import plot_grid, save_figure
from tests.reporting.made_up import MadeUpRun


@pytest.fixture
def grid(finished: MadeUpRun) -> Grid:
    return load_document(finished.layout.grid(finished.task), Grid)


def test_zero_stands_beside_the_scale(grid: Grid) -> None:
    (top,) = plot_grid(grid).axes
    assert list(top.get_xticks()) == pytest.approx([-2.7, -2.0, -1.0, 0.0, 1.0])
    assert [label.get_text() for label in top.get_xticklabels()] == ["0", "0.01", "0.1", "1", "10"]
    assert top.get_xlabel() == "λ"
    joined = [list(line.get_xdata()) for line in top.lines if len(line.get_xdata()) == 4]
    assert joined[0] == pytest.approx([-2.0, -1.0, 0.0, 1.0])  # on the scale only
    legend = top.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "success rate",
        "share of modes solved",
        "obeyed",
    ]


def test_without_an_axis_cells_stand_side_by_side_under_their_names(grid: Grid) -> None:
    top = plot_grid(grid.model_copy(update={"axis": None})).axes[0]
    assert list(top.get_xticks()) == [0, 1, 2, 3, 4]
    assert top.get_xticklabels()[1].get_text() == "mi_weight=0.01"
    assert top.get_xlabel() == ""


def test_methods_stand_below_one_another(grid: Grid) -> None:
    def add_method(cell: Cell) -> Cell:
        scores = cell.methods["dsrl-bmd"]
        return cell.model_copy(update={"methods": {"dsrl-bmd": scores, "dppo-bmd": scores}})

    two = grid.model_copy(update={"cells": [add_method(cell) for cell in grid.cells]})
    axes = plot_grid(two).axes
    assert len(axes) == 2
    assert axes[-1].get_title(loc="left") == "Toy, dppo-bmd: success and modes against λ"


def test_the_files_are_written(grid: Grid, tmp_path: Path) -> None:
    paths = save_figure(plot_grid(grid), tmp_path / "grid")
    assert [path.name for path in paths] == ["grid.png", "grid.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
