"""What the figure of a λ sweep shows, looked up in its own parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from bmd_pipeline.metrics.plateau import INDICATORS
from bmd_pipeline.metrics.schemas import Indicator, Interval, Plateau, Point, Provenance, Score, Sweep
from bmd_pipeline.reporting import figures
from bmd_pipeline.reporting.figures import draw_sweep


def make_point(name: str, weight: float | None, success: float) -> Point:
    interval = Interval(value=success, low=success - 0.1, high=success)
    score = Score(mean=interval, iqm=interval, seeds=[success, success - 0.05])
    return Point(
        name=name,
        controller="constant" if weight is not None else name,
        weight=weight,
        metrics={"success_rate": score, "solved": score, "obeyed": score},
        stability={indicator: Indicator(mean=0.5, seeds=[0.4, 0.6]) for indicator in INDICATORS},
        holds=success > 0.9,
    )


def make_sweep(*points: Point, plateau: Plateau | None) -> Sweep:
    provenance = Provenance(
        command="",
        git_commit=None,
        packages={},
        python="",
        platform="",
        device="",
        threads=1,
        wall_s=0.0,
        cpu_seconds=0.0,
        config={},
        inputs={},
    )
    return Sweep(
        schema_version=2,
        task="Toy",
        config_hash="",
        method="dsrl-bmd",
        confidence=0.9,
        labelling="side",
        total_modes=2,
        tau=0.8,
        seeds=[0, 1],
        episodes_per_seed=10,
        points=list(points),
        success_floor=0.9,
        solved_floor=0.9,
        plateau=plateau,
        text="",
        provenance=provenance,
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: kept.append(figure))
    return kept


POINTS = (
    make_point("weight-0", 0.0, 0.5),
    make_point("weight-0.1", 0.1, 0.95),
    make_point("weight-1", 1.0, 0.95),
    make_point("occupancy", None, 0.95),
)


def test_zero_and_controllers_stand_beside_the_scale_and_the_plateau_is_shaded(drawn: list[Figure]) -> None:
    plateau = Plateau(
        names=["weight-0.1", "weight-1"], low=0.1, high=1.0, decades=1.0, open_below=True, open_above=True
    )
    draw_sweep(make_sweep(*POINTS, plateau=plateau), Path("unused"))
    top, *below = drawn[0].axes
    assert list(top.get_xticks()) == pytest.approx([-1.7, -1.0, 0.0, 0.7])
    assert [label.get_text() for label in top.get_xticklabels()] == ["0", "0.1", "1", "occupancy"]
    assert len(below) == 4
    lines = [line for line in top.lines if len(line.get_xdata()) == 2]
    assert lines
    assert list(lines[0].get_xdata()) == pytest.approx([-1.0, 0.0])  # joined on the scale only
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


def test_without_a_plateau_nothing_is_shaded_and_without_weights_nothing_breaks(drawn: list[Figure]) -> None:
    draw_sweep(make_sweep(*POINTS, plateau=None), Path("unused"))
    draw_sweep(make_sweep(POINTS[0], POINTS[3], plateau=None), Path("unused"))
    assert all(not figure.axes[0].patches for figure in drawn)


def test_the_files_are_written(tmp_path: Path) -> None:
    paths = draw_sweep(make_sweep(*POINTS, plateau=None), tmp_path / "sweep")
    assert [path.name for path in paths] == ["sweep.png", "sweep.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
