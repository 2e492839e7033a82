"""The figure of a λ sweep: success and modes against λ, and below them the signs of instability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bmd_pipeline.metrics.schemas import Point, Sweep
from bmd_pipeline.reporting.style import BLUE, GREEN, GREY, ORANGE, VERMILION, house_style, save_figure

_SCORES = (
    ("success_rate", "success rate", BLUE, "o"),
    ("solved", "share of modes solved", VERMILION, "s"),
    ("obeyed", "obeyed", GREEN, "^"),
)
_INDICATORS = (
    ("early_stops", "updates stopped\nearly (share)"),
    ("kl_peak", "largest KL\nof an update (nats)"),
    ("entropy_change", "change of policy\nentropy (nats)"),
    ("return_variance", "variance of the\nreturn between updates"),
)
_GAP = 0.7
"""Decades between the weights and what stands beside their scale: λ = 0, and controllers."""


def draw_sweep(sweep: Sweep, stem: Path) -> list[Path]:
    """Draws a sweep; the plateau is shaded, λ = 0 and controllers stand beside the logarithmic scale.

    Args:
        sweep: content of sweep.json.
        stem: path of the figure without suffix.

    Returns:
        Paths of the PNG and the SVG.
    """
    places = _place(sweep.points)
    with house_style():
        figure = Figure(figsize=(8.6, 5.8), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=(1.5, 1))
        upper, lower = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
        top = upper.add_subplot()
        _shade_plateau(top, sweep, places)
        for name, label, colour, marker in _SCORES:
            total = sweep.total_modes if name == "solved" else 1
            _plot_score(top, sweep.points, places, name, label, colour, marker, total)
        top.set_ylim(-0.04, 1.04)
        top.set_title(f"{sweep.task}, {sweep.method}: success and modes against λ", loc="left")
        top.set_xlabel("λ")
        top.legend(loc="upper left", bbox_to_anchor=(1, 1), title=_describe(sweep), title_fontsize=8, alignment="left")
        _mark(top, sweep.points, places)
        for axes, (name, label) in zip(lower.subplots(1, len(_INDICATORS)), _INDICATORS, strict=True):
            _plot_indicator(axes, sweep.points, places, name)
            axes.set_title(label, loc="left", fontsize=8, fontweight="normal")
            if name == "early_stops":
                axes.set_ylim(-0.04, 1.04)
            axes.set_xlabel("λ")
            _mark(axes, sweep.points, places, every=2)
        return save_figure(figure, stem)


def _place(points: Sequence[Point]) -> list[float]:
    """Position of each point on the x axis, in decades."""
    positive = [point.weight for point in points if point.weight]
    low, high = (math.log10(positive[0]), math.log10(positive[-1])) if positive else (0.0, 0.0)
    places, beside = [], high
    for point in points:
        if point.weight is None:
            beside += _GAP
            places.append(beside)
        else:
            places.append(math.log10(point.weight) if point.weight else low - _GAP)
    return places


def _constants(points: Sequence[Point]) -> list[int]:
    """Indices of the points on the logarithmic scale, which a line joins."""
    return [i for i, point in enumerate(points) if point.weight]


def _plot_score(
    axes: Axes,
    points: Sequence[Point],
    places: list[float],
    name: str,
    label: str,
    colour: str,
    marker: str,
    total: int,
) -> None:
    """One score of all points as a share of `total`."""
    means = [point.metrics[name].mean for point in points]
    values = [mean.value / total for mean in means]
    joined = _constants(points)
    axes.plot([places[i] for i in joined], [values[i] for i in joined], color=colour, linewidth=1.2)
    axes.errorbar(
        places,
        values,
        yerr=[
            [(mean.value - mean.low) / total for mean in means],
            [(mean.high - mean.value) / total for mean in means],
        ],
        fmt=marker,
        color=colour,
        markersize=5.5,
        elinewidth=1.1,
        capsize=2.5,
        clip_on=False,
        label=label,
    )
    for place, point in zip(places, points, strict=True):
        seeds = [seed / total for seed in point.metrics[name].seeds]
        axes.scatter([place] * len(seeds), seeds, s=9, color=colour, alpha=0.4, linewidth=0, clip_on=False)


def _plot_indicator(axes: Axes, points: Sequence[Point], places: list[float], name: str) -> None:
    found = [point.stability[name] for point in points]
    joined = _constants(points)
    axes.plot([places[i] for i in joined], [found[i].mean for i in joined], color=GREY, linewidth=1.0)
    axes.scatter(places, [one.mean for one in found], s=14, color=GREY, zorder=3)
    for place, one in zip(places, found, strict=True):
        axes.scatter([place] * len(one.seeds), one.seeds, s=7, color=GREY, alpha=0.4, linewidth=0)


def _shade_plateau(axes: Axes, sweep: Sweep, places: list[float]) -> None:
    if sweep.plateau is None:
        return
    inside = [place for place, point in zip(places, sweep.points, strict=True) if point.name in sweep.plateau.names]
    axes.axvspan(min(inside) - 0.12, max(inside) + 0.12, color=ORANGE, alpha=0.18, linewidth=0, label="both hold")


def _mark(axes: Axes, points: Sequence[Point], places: list[float], every: int = 1) -> None:
    """Ticks with names; narrow axes name every second weight, upright."""
    constants = _constants(points)
    named = {i for i in range(len(points)) if i not in constants} | set(constants[::every])
    labels = [point.controller if point.weight is None else f"{point.weight:g}" for point in points]
    axes.set_xticks(places, [label if i in named else "" for i, label in enumerate(labels)])
    if every > 1:
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
    axes.margins(x=0.04)
    axes.grid(axis="y")


def _describe(sweep: Sweep) -> str:
    seeds = len(sweep.seeds)
    return f"mean and {sweep.confidence:.0%} interval,\n{seeds} seed{'s' * (seeds > 1)}; small: single seeds"
