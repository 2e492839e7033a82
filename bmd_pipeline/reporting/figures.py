"""The figures of an evaluation, drawn from what its files hold; no training code draws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bmd_pipeline.metrics.schemas import Evaluation, PolicyBlock, SeedRow
from bmd_pipeline.reporting.style import (
    GREY,
    house_style,
    method_style,
    mode_colours,
    save_figure,
)
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath

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
