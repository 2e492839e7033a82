"""The figures of evaluations and of a sweep over λ, in one style; files are the same bytes for the same data."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.metrics.schemas import Evaluation, Point, PolicyBlock, SeedRow, Sweep
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath

# ---- How figures look: one palette, one font size, files that are the same bytes for the same data ----
#
# Colours are Okabe and Ito's, told apart by colour-blind readers; methods differ in marker as well.

BLACK, GREY = "#222222", "#7a7a7a"
BLUE, SKY, VERMILION, ORANGE, GREEN, PURPLE = (
    "#0072b2",
    "#56b4e9",
    "#d55e00",
    "#e69f00",
    "#009e73",
    "#cc79a7",
)

_MODE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "bmd-pipeline",
    "svg.fonttype": "path",
}


def house_style() -> AbstractContextManager[None]:
    """Settings of matplotlib while a figure is made and saved; the caller's own are left alone."""
    return mpl.rc_context(_RC)


@dataclass(frozen=True)
class MethodStyle:
    """Look of one method.

    Attributes:
        colour: the family's hue, the same with and without mode codes.
        marker: circle with mode codes, square without, diamond for the pre-trained policy.
        filled: filled with mode codes, hollow without.
    """

    colour: str
    marker: str
    filled: bool


_FAMILIES = {"dsrl": BLUE, "dppo": VERMILION, "res": GREEN}


def method_style(method: str) -> MethodStyle:
    """Look of a method, the same in every figure; unknown families are purple."""
    if method in ("pretrained", "taught"):
        return MethodStyle(BLACK if method == "pretrained" else ORANGE, "D", True)
    family, _, variant = method.partition("-")
    colour = _FAMILIES.get(family, PURPLE)
    return MethodStyle(colour, "o", True) if variant == "bmd" else MethodStyle(colour, "s", False)


def mode_colours(modes: Sequence[str]) -> dict[str, str]:
    """A colour per mode by its place in the task's list; many modes share out a perceptual scale."""
    if len(modes) <= len(_MODE_COLOURS):
        return dict(zip(modes, _MODE_COLOURS, strict=False))
    scale = mpl.colormaps["viridis"]
    # The last tenth of the scale is too pale on white.
    return {mode: to_hex(scale(0.9 * i / (len(modes) - 1))) for i, mode in enumerate(modes)}


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes stem.png and stem.svg, whole and without dates; returns their paths."""
    FigureCanvasAgg(figure)
    paths = []
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{kind}")
        write_bytes(path, buffer.getvalue())
        paths.append(path)
    return paths


# ---- The figures of an evaluation, drawn from what its files hold; no training code draws ----

_MAX_COLUMNS = 4
_PANEL = 2.5


def draw_success_modes(evaluation: Evaluation, stem: Path) -> list[Path]:
    """Success against solved modes: one point with intervals per policy, small points for its seeds.

    Args:
        evaluation: content of eval.json.
        stem: path of the figure without suffix.

    Returns:
        Paths of the PNG and the SVG.
    """
    first = next(iter(evaluation.policies.values())).solved
    with house_style():
        figure = Figure(figsize=(6.4, 3.7), layout="constrained")
        axes = figure.add_subplot()
        for name, block in evaluation.policies.items():
            _plot_policy(axes, name, block)
        axes.set_xlim(-0.04 * first.total, 1.04 * first.total)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks(_count_ticks(first.total))
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.grid()
        axes.set_xlabel(f"modes solved, at a success rate ≥ {first.tau:g} (of {first.total})")
        axes.set_ylabel("success rate")
        axes.set_title(f"{evaluation.task}: success against modes", loc="left")
        handles = [_method_handle(name, block) for name, block in evaluation.policies.items()]
        figure.legend(
            handles=handles,
            loc="outside right upper",
            title=_legend_title(evaluation),
            title_fontsize=8,
            alignment="left",
            labelspacing=0.9,
        )
        return save_figure(figure, stem)


def draw_trajectories(evaluation: Evaluation, book: PathBook, stem: Path) -> list[Path]:
    """Trajectories coloured by true mode, one panel per policy, failures thin and grey.

    A panel shows the policy's first seed only: seeds that collapsed onto different modes would look diverse
    in one picture.

    Args:
        evaluation: content of eval.json; each of its policies gets a panel.
        book: their paths.
        stem: path of the figure without suffix.

    Returns:
        Paths of the PNG and the SVG.
    """
    policies = evaluation.policies
    columns = min(len(policies), _MAX_COLUMNS)
    rows = math.ceil(len(policies) / columns)
    legend_columns = math.ceil((len(book.modes) + 1) / 12)
    x_limits, y_limits = _limits(book)
    height = _PANEL * (y_limits[1] - y_limits[0]) / (x_limits[1] - x_limits[0]) if book.to_scale else _PANEL
    with house_style():
        size = (_PANEL * columns + 0.6 + 1.1 * legend_columns, (height + 0.45) * rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, block) in zip(grid.flat, policies.items(), strict=False):
            shown = block.seeds[0]
            paths = [path for path in book.paths if (path.policy, path.seed) == (name, shown.seed)]
            _plot_paths(axes, paths, book)
            axes.set(xlim=x_limits, ylim=y_limits, aspect="equal" if book.to_scale else "auto")
            axes.set_title(f"{name}, seed {shown.seed}", loc="left", pad=16)
            axes.text(0, 1.02, _describe(shown, block), transform=axes.transAxes, fontsize=8, color=GREY)
        for axes in grid.flat[len(policies) :]:
            axes.set_axis_off()
        for axes in grid[:, 0]:
            axes.set_ylabel(_axis_label(book.axes[1]))
        for column in range(columns):
            lowest = grid[(len(policies) - 1 - column) // columns, column]
            lowest.set_xlabel(_axis_label(book.axes[0]))
            lowest.tick_params(labelbottom=True)
        figure.legend(
            handles=_mode_handles(book),
            loc="outside right upper",
            title=book.labelling,
            title_fontsize=8,
            alignment="left",
            ncols=legend_columns,
        )
        return save_figure(figure, stem)


def _plot_policy(axes: Axes, name: str, block: PolicyBlock) -> None:
    style = method_style(name)
    x, y = block.solved, block.success_rate
    face = style.colour if style.filled else "white"
    if len(block.seeds) > 1:
        axes.scatter(
            [seed.solved for seed in block.seeds],
            [seed.success_rate for seed in block.seeds],
            marker=style.marker,
            s=14,
            facecolor=face,
            edgecolor=style.colour,
            alpha=0.45,
            linewidth=0.7,
            clip_on=False,
        )
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=[[x.mean - x.low], [x.high - x.mean]],
        yerr=[[y.mean - y.low], [y.high - y.mean]],
        fmt=style.marker,
        color=style.colour,
        markerfacecolor=face,
        markersize=7.5,
        elinewidth=1.2,
        capsize=2.5,
        clip_on=False,
        zorder=3,
    )


def _plot_paths(axes: Axes, paths: list[PlanarPath], book: PathBook) -> None:
    colours = mode_colours(book.modes)
    failed = [path.xy for path in paths if not path.success]
    won = [path for path in paths if path.success and path.mode is not None]
    shades = [colours[path.mode] for path in won if path.mode is not None]
    axes.add_collection(LineCollection([path.xy for path in won], colors=shades, linewidths=0.9, alpha=0.7))
    # Failures on top: below the others they would vanish, and a weak policy would look like a good one.
    axes.add_collection(LineCollection(failed, colors=GREY, linewidths=0.6))
    if won:
        ends = np.stack([path.xy[-1] for path in won])
        axes.scatter(ends[:, 0], ends[:, 1], c=shades, s=6, zorder=3, linewidth=0)
    axes.grid()


def _limits(book: PathBook) -> tuple[tuple[float, float], tuple[float, float]]:
    """Axis limits around all paths, of moderate proportions if both axes have one scale."""
    points = np.concatenate([path.xy for path in book.paths])
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    half = 1.06 * (points.max(axis=0) - points.min(axis=0)) / 2
    half = np.maximum(half, max(0.5 * float(half.max()), 1e-6) if book.to_scale else 1e-6)
    low, high = centre - half, centre + half
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _axis_label(column: str) -> str:
    return column.replace("_", " ")


def _describe(seed: SeedRow, block: PolicyBlock) -> str:
    return f"success {seed.success_rate:.2f}, {seed.solved} of {block.solved.total} solved, obeyed {seed.obeyed:.2f}"


def _legend_title(evaluation: Evaluation) -> str:
    title = f"mean and {evaluation.confidence:.0%} interval"
    several = any(len(block.seeds) > 1 for block in evaluation.policies.values())
    return f"{title};\nsmall: single seeds" if several else title


def _method_handle(name: str, block: PolicyBlock) -> Line2D:
    style = method_style(name)
    seeds = len(block.seeds)
    label = (
        f"{name}\n{seeds} seed{'s' * (seeds > 1)}, n = {block.success_rate.n}\n"
        f"obeyed {block.obeyed.mean:.2f}, worst {block.obeyed_worst.mean:.2f}"
    )
    face = style.colour if style.filled else "white"
    return Line2D([], [], marker=style.marker, color=style.colour, markerfacecolor=face, linestyle="", label=label)


def _mode_handles(book: PathBook) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, linewidth=1.6, label=mode) for mode, colour in mode_colours(book.modes).items()
    ]
    return [*handles, Line2D([], [], color=GREY, linewidth=0.8, label="failed")]


def _count_ticks(total: int) -> list[int]:
    """At most about nine whole numbers from 0 to total."""
    step = max(1, math.ceil(total / 8))
    ticks = list(range(0, total + 1, step))
    # The total itself is always marked, in place of a tick that would touch it.
    return [tick for tick in ticks if total - tick >= step or tick == total] + [total] * (ticks[-1] != total)


# ---- The figure of a λ sweep: success and modes against λ, and below them the signs of instability ----

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
        top.legend(
            loc="upper left", bbox_to_anchor=(1, 1), title=_describe_sweep(sweep), title_fontsize=8, alignment="left"
        )
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


def _describe_sweep(sweep: Sweep) -> str:
    seeds = len(sweep.seeds)
    return f"mean and {sweep.confidence:.0%} interval,\n{seeds} seed{'s' * (seeds > 1)}; small: single seeds"
