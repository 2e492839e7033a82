"""What the figure of a λ sweep shows, looked up in its own parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmd_pipeline.metrics.schemas import Sweep, load_document
from bmd_pipeline.reporting.figures import draw_sweep, plot_sweep
from tests.reporting.made_up import MadeUpRun


@pytest.fixture
def sweep(finished: MadeUpRun) -> Sweep:
    return load_document(finished.layout.sweep(finished.task), Sweep)


def test_zero_and_controllers_stand_beside_the_scale_and_the_plateau_is_shaded(sweep: Sweep) -> None:
    top, *below = plot_sweep(sweep).axes
    assert list(top.get_xticks()) == pytest.approx([-2.7, -2.0, -1.0, 0.0, 1.0, 1.7])
    assert [label.get_text() for label in top.get_xticklabels()] == ["0", "0.01", "0.1", "1", "10", "occupancy"]
    assert len(below) == 6
    joined = [list(line.get_xdata()) for line in top.lines if len(line.get_xdata()) == 4]
    assert joined[0] == pytest.approx([-2.0, -1.0, 0.0, 1.0])  # on the scale only
    floors = [line.get_ydata()[0] for line in top.lines if line.get_linestyle() == ":"]
    assert floors == pytest.approx([sweep.success_floor, sweep.solved_floor / sweep.total_modes])
    (span,) = top.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((-1.12, 0.12))
    legend = top.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "both hold",
        "success rate",
        "share of modes solved",
        "obeyed",
    ]


def test_without_a_plateau_nothing_is_shaded_and_without_weights_nothing_breaks(sweep: Sweep) -> None:
    without = sweep.model_copy(update={"plateau": None})
    ends = without.model_copy(update={"points": [sweep.points[0], sweep.points[-1]]})
    assert all(not plot_sweep(one).axes[0].patches for one in (without, ends))


def test_the_files_are_written(sweep: Sweep, tmp_path: Path) -> None:
    paths = draw_sweep(sweep, tmp_path / "sweep")
    assert [path.name for path in paths] == ["sweep.png", "sweep.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
