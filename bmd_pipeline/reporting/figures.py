"""All figures, each drawn once: files beside the results, and the same drawing inside the page."""

import functools
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from bmd_pipeline.io.files import write_bytes
from bmd_pipeline.io.layout import MARK
from bmd_pipeline.methods import PRETRAINED, is_finetuned, method_family, uses_modes
from bmd_pipeline.metrics.schemas import CodeCheck, CodeRow, Evaluation, Grid, PolicyBlock
from bmd_pipeline.reporting.narrative import counted, name_axis
from bmd_pipeline.reporting.sources import Curves, Key
from bmd_pipeline.reporting.trajectories import PathBook, PlanarPath

# ---- Style of figures: one palette, one font size, files that are the same bytes for the same data ----
#
# Colours are Okabe and Ito's, which colour-blind readers can distinguish; methods differ in marker as well.

BLACK, GREY, PALE, WHITE = "#222222", "#7a7a7a", "#e6e6e6", "#ffffff"
BLUE, SKY, VERMILION, ORANGE, GREEN, PURPLE = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7")

_LONGEST = 28
"""Letters of a name from data."""
_MODE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": BLACK,
    "text.parse_math": False,  # names are text, whatever is in them
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
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "svg.hashsalt": "bmd-pipeline",
    "svg.fonttype": "path",
}


house_style = functools.partial(mpl.rc_context, _RC)
"""Settings of matplotlib while a figure is made and saved; the caller's own are left alone."""


@dataclass(frozen=True)
class MethodStyle:
    """Style of one method."""

    colour: str  # the family's hue, the same with and without mode codes
    marker: str  # diamond before fine-tuning, then circle with mode codes, square without
    filled: bool  # False after fine-tuning without mode codes

    @property
    def face(self) -> str:
        """Colour inside the marker."""
        return self.colour if self.filled else WHITE

    @property
    def line(self) -> Literal["-", "--"]:
        """Kind of line: dashed where the marker is hollow."""
        return "-" if self.filled else "--"


_FAMILIES = {"dsrl": BLUE, "dppo": VERMILION, "res": GREEN, "fbc": SKY}


def method_style(method: str) -> MethodStyle:
    """Style of a method, the same in every figure; unknown families are purple."""
    if not is_finetuned(method):
        return MethodStyle(BLACK if method == PRETRAINED else ORANGE, "D", True)
    coded = uses_modes(method)
    return MethodStyle(_FAMILIES.get(method_family(method), PURPLE), "o" if coded else "s", coded)


def mode_colours(modes: Sequence[str]) -> dict[str, str]:
    """A colour per mode by its place in the task's list; many modes share out a perceptual scale."""
    if len(modes) <= len(_MODE_COLOURS):
        return dict(zip(modes, _MODE_COLOURS, strict=False))
    scale = mpl.colormaps["viridis"]
    # The last tenth of the scale is too pale on white.
    return {mode: to_hex(scale(0.9 * i / (len(modes) - 1))) for i, mode in enumerate(modes)}


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes a figure to stem.png and stem.svg, whole and without dates; returns their paths."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for path in paths:
        write_bytes(path, _print(figure, path.suffix[1:]))
    return paths


def encode_picture(figure: Figure) -> bytes:
    """The figure as a PNG file, without dates."""
    return _print(figure, "png")


def embed_figure(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element for a page.

    Identifiers begin with the name, so that figures of one page don't share any.

    Args:
        figure: what to embed.
        name: letters, digits and hyphens, another one for each figure of a page.
        title: its name for screen readers.
        description: what it shows, in words, for them too.
    """
    root = ET.fromstring(_print(figure, "svg", transparent=True))
    kept = []
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # inside HTML there are no namespaces
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        kept += re.findall("#([A-Za-z][^)]*)", element.get("href", "") + element.get("clip-path", ""))
        element.text, element.tail = (element.text or "").strip() or None, None
    for part in [*root.findall("metadata"), *[part for part in root.findall("defs") if part.find("style") is not None]]:
        root.remove(part)
    rewritten = {
        "id": ("^", f"{name}-"),
        **dict.fromkeys(("href", "clip-path"), ("#", f"#{name}-")),
        **dict.fromkeys(("d", "x", "y"), (r"(\d\.\d\d)\d+", r"\1")),  # two decimals
    }
    for element in root.iter():
        if element.get("id") not in kept:
            element.attrib.pop("id", None)
        for key in element.attrib.keys() & rewritten:
            element.set(key, re.sub(*rewritten[key], element.attrib[key]))
    box = root.attrib["viewBox"]
    root.attrib = {
        "viewBox": box,
        "role": "img",
        "style": f"--width: {float(box.split()[2]) * 4 / 3:.0f}px",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for tag, what, text in (("desc", "description", description), ("title", "title", title)):
        element = ET.Element(tag, id=f"{name}-{what}")
        element.text = text
        root.insert(0, element)
    return ET.tostring(root, encoding="unicode")


def _print(figure: Figure, kind: str, *, transparent: bool = False) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": MARK} if kind == "svg" else {"Software": MARK}
    with house_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata, transparent=transparent)
    return buffer.getvalue()


def _label(name: str) -> str:
    """A name from data, without line breaks and not too long to stand in a figure."""
    text = "".join(letter if letter.isprintable() else " " for letter in name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


# ---- The figures of an evaluation, drawn from what its files hold; no training code draws ----

_MAX_COLUMNS = 4
_PANEL = 2.5
MAX_PATHS = 200
"""Paths of a panel, the first ones: more can't be distinguished, and a page carries every point of them."""


@house_style()
def plot_success_modes(evaluation: Evaluation) -> Figure:
    """Success against solved modes: one point with intervals per policy, small points for its seeds.

    Where no policy solves a mode, modes that are present are counted instead.
    """
    policies = evaluation.policies
    first = next(iter(policies.values())).solved
    unit = "solved" if any(block.solved.mean > 0 for block in policies.values()) else "present"
    figure = Figure(figsize=(6.4, 3.7), layout="constrained")
    axes = figure.add_subplot()
    for name, block in policies.items():
        _plot_policy(axes, name, block, unit)
    axes.set_xlim(-0.04 * first.total, 1.04 * first.total)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xticks(_count_ticks(first.total))
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.grid()
    how = {"solved": f"at a success rate ≥ {first.tau:g}", "present": f"with ≥ {first.min_share:.0%} of the successes"}
    axes.set_xlabel(f"modes {unit}, {how[unit]} (of {first.total})")
    axes.set_ylabel("success rate")
    axes.set_title(f"{_label(evaluation.task)}: success against modes", loc="left")
    title = f"mean and {evaluation.confidence:.0%} interval"
    if any(len(block.seeds) > 1 for block in policies.values()):
        title += ";\nsmall: single seeds"
    handles = [_method_handle(name, block) for name, block in policies.items()]
    figure.legend(handles=handles, loc="outside right upper", title=title, alignment="left", labelspacing=0.9)
    return figure


@house_style()
def plot_trajectories(evaluation: Evaluation, book: PathBook) -> Figure:
    """Trajectories coloured by true mode, one panel per policy, failures thin and grey.

    A panel shows the policy's first seed only: seeds that collapsed onto different modes would look diverse
    in one picture.
    """
    legend_columns = math.ceil((len(book.modes) + 1) / 12)
    figure, panels = _make_panels(len(evaluation.policies), book, beside=1.1 * legend_columns)
    for axes, (name, block) in zip(panels, evaluation.policies.items(), strict=True):
        seed = block.seeds[0]
        paths = [path for path in book.paths if (path.policy, path.seed) == (name, seed.seed)][:MAX_PATHS]
        _plot_paths(axes, paths, book)
        axes.set_title(f"{name}, seed {seed.seed}", loc="left", pad=16)
        numbers = (
            f"success {seed.success_rate:.2f}, {seed.solved} of {block.solved.total} solved, obeyed {seed.obeyed:.2f}"
        )
        axes.text(0, 1.02, numbers, transform=axes.transAxes, fontsize=8, color=GREY)
    colours = mode_colours(book.modes)
    handles = [Line2D([], [], color=colours[mode], linewidth=1.6, label=_label(mode)) for mode in book.modes]
    handles.append(Line2D([], [], color=GREY, linewidth=0.8, label="failed"))
    title = _label(book.labelling)
    figure.legend(handles=handles, loc="outside right upper", title=title, alignment="left", ncols=legend_columns)
    return figure


@house_style()
def plot_codes_paths(titles: Sequence[str], book: PathBook) -> Figure:
    """Trajectories by the code that commanded them, one panel per code with a title each; colours are true modes,
    failures thin and grey."""
    figure, panels = _make_panels(len(titles), book)
    for code, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        _plot_paths(axes, [path for path in book.paths if path.code == code], book)
        axes.set_title(title, loc="left")
    return figure


def _make_panels(count: int, book: PathBook, beside: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels for paths, labelled along its left and lower edge; `beside` inches wider, for a
    legend."""
    columns = min(count, _MAX_COLUMNS)
    rows = math.ceil(count / columns)
    x_limits, y_limits = _limits(book)
    height = _PANEL * (y_limits[1] - y_limits[0]) / (x_limits[1] - x_limits[0]) if book.to_scale else _PANEL
    size = (_PANEL * columns + 0.6 + beside, (height + 0.45) * rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[:count]:
        axes.set(xlim=x_limits, ylim=y_limits, aspect="equal" if book.to_scale else "auto")
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    across, up = (_label(axis.replace("_", " ")) for axis in book.axes)
    for axes in grid[:, 0]:
        axes.set_ylabel(up)
    for column in range(columns):
        lowest = grid[(count - 1 - column) // columns, column]
        lowest.set_xlabel(across)
        lowest.tick_params(labelbottom=True)
    return figure, list(grid.flat[:count])


def _plot_policy(axes: Axes, name: str, block: PolicyBlock, unit: str) -> None:
    """Success of a policy against its modes, `solved` or `present`."""
    style, x, y = method_style(name), getattr(block, unit), block.success_rate
    if len(block.seeds) > 1:
        axes.scatter(
            [getattr(seed, unit) for seed in block.seeds],
            [seed.success_rate for seed in block.seeds],
            marker=style.marker,
            s=14,
            facecolor=style.face,
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
        markerfacecolor=style.face,
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


def _method_handle(name: str, block: PolicyBlock) -> Line2D:
    style = method_style(name)
    label = (
        f"{name}\n{counted(len(block.seeds), 'seed')}, n = {block.success_rate.n}\n"
        f"obeyed {block.obeyed.mean:.2f}, worst {block.obeyed_worst.mean:.2f}"
    )
    return Line2D(
        [], [], marker=style.marker, color=style.colour, markerfacecolor=style.face, linestyle="", label=label
    )


def _count_ticks(total: int) -> list[int]:
    """At most about nine whole numbers from 0 to total."""
    step = max(1, math.ceil(total / 8))
    ticks = list(range(0, total + 1, step))
    # The total itself is always marked, in place of a tick that would touch it.
    return [tick for tick in ticks if total - tick >= step or tick == total] + [total] * (ticks[-1] != total)


# ---- The figure of a grid: success and modes in every cell ----

_SCORES = (
    ("success_rate", "success rate", BLUE, "o"),
    ("solved", "share of modes solved", VERMILION, "s"),
    ("obeyed", "obeyed", GREEN, "^"),
)
_GAP = 0.7
"""Decades between the smallest positive value and 0, which stands beside a logarithmic scale."""


@house_style()
def plot_grid(grid: Grid) -> Figure:
    """A grid, one method below another. Along one axis of numbers the scale is logarithmic, with 0 beside it; else
    cells stand side by side under their names.
    """
    methods = list(grid.cells[0].methods)
    scale = _Scale(grid)
    figure = Figure(figsize=(8.6, 3.6 * len(methods)), layout="constrained")
    for axes, method in zip(figure.subplots(len(methods), squeeze=False).flat, methods, strict=True):
        _plot_method(axes, grid, method, scale)
    return figure


class _Scale:
    """Where the cells of a grid stand on the x axis, and how they are named."""

    def __init__(self, grid: Grid) -> None:
        self.name = name_axis(grid)  # empty where several settings vary
        self.places = [float(i) for i in range(len(grid.cells))]
        self.labels = [cell.name.replace(",", "\n") for cell in grid.cells]
        self.joined: list[int] = []  # cells that a line joins
        if grid.axis is None:
            return
        values = [float(cell.changes[grid.axis] or 0.0) for cell in grid.cells]
        self.labels, self.joined = [f"{value:g}" for value in values], list(range(len(values)))
        if values[0] >= 0 and values[-1] > 0:
            self.joined = [i for i, value in enumerate(values) if value > 0]
            beside = math.log10(values[self.joined[0]]) - _GAP
            self.places = [math.log10(value) if value > 0 else beside for value in values]

    def mark(self, axes: Axes) -> None:
        """Ticks with names."""
        axes.set_xticks(self.places, self.labels)
        if not self.name:
            axes.tick_params(axis="x", labelrotation=90, labelsize=7)
        axes.set_xlabel(self.name)
        axes.margins(x=0.04)
        axes.grid(axis="y")

    def join(self, axes: Axes, values: Sequence[float] | NDArray[np.float64], colour: str, width: float) -> None:
        """A line through the values of neighbouring cells."""
        if self.joined:
            places = [self.places[i] for i in self.joined]
            axes.plot(places, [values[i] for i in self.joined], color=colour, linewidth=width)


def _plot_method(axes: Axes, grid: Grid, method: str, scale: _Scale) -> None:
    """One method's scores in every cell."""
    cells = [cell.methods[method] for cell in grid.cells]
    for name, label, colour, marker in _SCORES:
        total = len(grid.modes) if name == "solved" else 1
        scores = [cell.metrics[name] for cell in cells]
        low, value, high = np.array([[score.mean.low, score.mean.value, score.mean.high] for score in scores]).T
        scale.join(axes, value / total, colour, 1.2)
        axes.errorbar(
            scale.places,
            value / total,
            yerr=[(value - low) / total, (high - value) / total],
            fmt=marker,
            color=colour,
            markersize=5.5,
            elinewidth=1.1,
            capsize=2.5,
            clip_on=False,
            label=label,
        )
        for place, score in zip(scale.places, scores, strict=True):
            seeds = np.divide(score.seeds, total)
            axes.scatter([place] * len(seeds), seeds, s=9, color=colour, alpha=0.4, linewidth=0, clip_on=False)
    axes.set_ylim(-0.04, 1.04)
    against = f" against {scale.name}" if scale.name else ""
    axes.set_title(f"{_label(grid.task)}, {_label(method)}: success and modes{against}", loc="left")
    title = f"mean and {grid.confidence:.0%} interval,\n{counted(len(grid.seeds), 'seed')}; small: single seeds"
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=title, alignment="left")
    scale.mark(axes)


# ---- Learning curves ----

_METRICS = {
    "success": "success in rollouts",
    "entropy": "change of the exploration's entropy (nats)",
    "kl": "KL divergence of an update / its target",
    "mi_weight": "weight λ",
    "information": "information M about the code (nats)",
}
"""Panels by their name in `Curves`."""
_CURVE_COLUMNS = 3


@house_style()
def plot_curves(curves: Mapping[Key, Curves], *, before: float | None = None) -> dict[str, Figure]:
    """Figures by family of methods, a panel per metric; the scale of a metric is the same in all of them.

    Thin lines are seeds, thick ones their mean where all have the same steps; dotted are the success rate before
    fine-tuning and the target of the KL. The KL is a share of it, since parts of a policy have targets of their own.
    """
    # A λ that no run ever changed would be a flat line in every figure.
    shown = [metric for metric in _METRICS if metric != "mi_weight" or held_weight(curves) is None]
    figures = {}
    for family in dict.fromkeys(method_family(policy) for policy, _ in curves):
        runs = {key: run for key, run in curves.items() if method_family(key[0]) == family}
        drawn = [metric for metric in shown if any(metric in run.values for run in runs.values())]
        rows = math.ceil(len(drawn) / _CURVE_COLUMNS)
        figure = Figure(figsize=(8.6, 2.1 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, _CURVE_COLUMNS, squeeze=False).flat
        aims = {"success": before, "kl": 1.0}
        for axes, metric in zip(panels, drawn, strict=False):
            _plot_metric(axes, runs, metric)
            axes.set_ylim(_curve_limits(curves, metric))
            if (aim := aims.get(metric)) is not None:
                axes.axhline(aim, color=GREY, linewidth=0.9, linestyle=":")
        for axes in list(figure.axes)[len(drawn) :]:
            axes.set_axis_off()
        handles = []
        for policy in dict.fromkeys(policy for policy, _ in runs):
            label = f"{policy}, {'with mode codes' if uses_modes(policy) else 'plain'}"
            style = method_style(policy)
            handles.append(Line2D([], [], color=style.colour, linestyle=style.line, label=label))
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="before; target of KL"))
        figure.legend(handles=handles, loc="outside upper left", ncols=4, title=family, alignment="left")
        figures[family] = figure
    return figures


def held_weight(curves: Mapping[Key, Curves]) -> float | None:
    """λ, if no run ever changed it and all have the same one."""
    weights = {value for run in curves.values() for value in run.values.get("mi_weight", ())}
    return weights.pop() if len(weights) == 1 else None


@house_style()
def plot_pretraining(pretraining: Curves, kept: int | None) -> Figure:
    """Success of the base policy over gradient steps; the marked step is the one whose weights were kept."""
    success = _heights(pretraining, "selected")
    style = method_style(PRETRAINED)
    figure = Figure(figsize=(4.4, 2.3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(pretraining.step, success, color=style.colour, linewidth=1.5)
    if kept in pretraining.step:
        at = pretraining.step.index(kept)
        axes.plot(kept, success[at], marker=style.marker, color=style.colour, markersize=6)
    _set_curve_axes(axes, "success of the base policy", "gradient step", share=True)
    axes.set_ylim(-0.04, 1.04)
    return figure


def _plot_metric(axes: Axes, runs: Mapping[Key, Curves], metric: str) -> None:
    heights = {key: _heights(run, metric) for key, run in runs.items() if metric in run.values}
    for policy in dict.fromkeys(policy for policy, _ in heights):
        keys = [key for key in heights if key[0] == policy]
        style = method_style(policy)
        line: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
        for key in keys:
            axes.plot(runs[key].step, heights[key], **line, linewidth=0.7, alpha=0.4)
        if all(runs[key].step == runs[keys[0]].step for key in keys):
            stacked = np.ma.masked_invalid([heights[key] for key in keys])
            axes.plot(runs[keys[0]].step, stacked.mean(axis=0).filled(np.nan), **line, linewidth=1.6)
    _set_curve_axes(axes, _METRICS[metric], "iteration", share=metric == "success")


def _heights(run: Curves, metric: str) -> list[float]:
    """What is drawn of a run, (num_points,), NaN where there is none.

    Of the entropy, which begins elsewhere in every method, that is its change since the first value.
    """
    values = run.values[metric]
    start = next((value for value in values if value is not None), 0.0) if metric == "entropy" else 0.0
    return [math.nan if value is None else value - start for value in values]


def _curve_limits(curves: Mapping[Key, Curves], metric: str) -> tuple[float, float]:
    if metric == "success":
        return -0.04, 1.04
    found = [value for run in curves.values() if metric in run.values for value in _heights(run, metric)]
    finite = [value for value in found if not math.isnan(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low >= 0:
        return 0.0, 1.05 * high or 1.0
    air = 0.05 * (high - low) or 0.1 * abs(low)
    return low - air, high + air


def _set_curve_axes(axes: Axes, title: str, across: str, *, share: bool) -> None:
    axes.set_title(title, loc="left", fontsize=8, fontweight="normal")
    axes.set_xlabel(across)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="y")
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


# ---- What each code does: a matrix of codes and true modes for each seed ----

_MANY_MODES = 10
_PAGE_INCHES = 8.8


@house_style()
def plot_codes(
    name: str,
    codes: Mapping[int, Sequence[CodeRow | CodeCheck]],
    modes: Sequence[str],
    called: Sequence[str | None] = (),
) -> Figure:
    """Matrices of codes (rows) and true modes (columns): the area of a disc is the share of the code's successes.

    Beside them stand the code's success rate and, for evaluations, the share of its own behaviour. `name` says whose
    codes they are, and `called` what a person calls each; there is a matrix for each seed.
    """
    cell = 0.28 if len(modes) <= _MANY_MODES else 0.17  # inches
    most = max(map(len, codes.values()))
    column = 0.44 / cell  # width of a column of numbers, in cells
    numbers = ("success", "obeyed") if isinstance(next(iter(codes.values()))[0], CodeRow) else ("success",)
    width = len(modes) + column * len(numbers)
    places = [len(modes) - 0.5 + column * (i + 0.5) for i in range(len(numbers))]
    names = 0.075 * max(len(_label(mode)) for mode in (*modes, *numbers))  # inches that upright names need
    columns = max(1, min(len(codes), int(_PAGE_INCHES / (cell * width + 0.5))))
    rows = math.ceil(len(codes) / columns)
    colours = mode_colours(modes)
    size = (columns * (cell * width + 0.5), rows * (cell * most + names + 0.5) + 0.1)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (seed, found) in zip(panels, codes.items(), strict=False):
        for y, row in enumerate(found):
            there = [x for x, mode in enumerate(modes) if row.mode_shares.get(mode, 0.0) > 0]
            axes.scatter(
                there,
                [y] * len(there),
                s=[(0.86 * 72 * cell) ** 2 * row.mode_shares[modes[x]] for x in there],
                c=[colours[modes[x]] for x in there],
                linewidth=0,
            )
            values = (row.success_rate, row.obeyed) if isinstance(row, CodeRow) else (row.success_rate,)
            for place, value in zip(places, values, strict=True):
                axes.text(place, y, f"{value:.0%}", ha="center", va="center", fontsize=7, color=GREY)
        axes.set_xticks([*range(len(modes)), *places], [*map(_label, modes), *numbers], rotation=90)
        labels = [(called[row.code] if called else None) or str(row.code) for row in found]
        axes.set_yticks(range(len(found)), [_label(label) for label in labels])
        axes.set_xticks(np.arange(len(modes) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(found) + 1) - 0.5, minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="both", length=0, top=False, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(most - 0.5, -0.5), aspect="equal")
        axes.set_xlabel(f"{_label(name)}, seed {seed}", loc="left", fontweight="bold")
    for axes in panels[len(codes) :]:
        axes.set_axis_off()
    return figure


# ---- Demonstrations ----

_MOST_PANELS = 32
"""Columns whose distribution is drawn."""


@house_style()
def plot_demos(found: Mapping[str, Any]) -> Figure:
    """Trajectories, lengths, and the distribution of each column, as an inspection's document tells them."""
    paths, lengths = found["trajectories"], found["lengths"]
    columns = [*found["columns"]["action"], *found["columns"]["obs"]]
    shown = columns[:_MOST_PANELS]
    rows = math.ceil(len(shown) / _MAX_COLUMNS)
    figure = Figure(figsize=(_PANEL * _MAX_COLUMNS, 3.4 + 1.3 * rows), layout="constrained")
    places = figure.add_gridspec(2, 1, height_ratios=(3.4, 1.3 * rows))
    above, below = (figure.add_subfigure(places[i]) for i in range(2))
    ways, times = above.subplots(1, 2, width_ratios=(2, 1))
    ways.add_collection(LineCollection(paths["points"][:MAX_PATHS], colors=BLUE, linewidths=0.7, alpha=0.5))
    starts, ends = ([path[i] for path in paths["points"][:MAX_PATHS]] for i in (0, -1))
    for points, colour, label in ((starts, GREEN, "start"), (ends, VERMILION, "end")):
        ways.scatter(*zip(*points, strict=True), s=8, color=colour, linewidth=0, zorder=3, label=label)
    ways.set(xlabel=_label(paths["columns"][0]), ylabel=_label(paths["columns"][1]))
    ways.set_title(f"{found['episodes']} episodes, {found['steps']} steps ({_label(found['format'])})", loc="left")
    ways.legend()
    ways.grid()
    _plot_counts(times, lengths, BLUE)
    times.set(xlabel="steps of an episode", ylabel="episodes")
    grid = below.subplots(rows, _MAX_COLUMNS, squeeze=False)
    for axes, column in zip(grid.flat, shown, strict=False):
        _plot_counts(axes, column, ORANGE if column in found["columns"]["action"] else SKY)
        axes.set_title(_label(column["name"]), loc="left", fontweight="normal", fontsize=8)
        axes.set_yticks([])
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    if len(columns) > len(shown):
        below.supxlabel(f"and {len(columns) - len(shown)} columns more", fontsize=8)
    return figure


def _plot_counts(axes: Axes, column: Mapping[str, Any], colour: str) -> None:
    """The histogram of a column from its least to its greatest value."""
    low, high, bars = column["min"], column["max"], len(column["histogram"]) + 1
    edges = np.linspace(low, high, bars) if low < high else np.linspace(low - 0.5, low + 0.5, bars)
    axes.stairs(column["histogram"], edges, fill=True, color=colour)
