"""How figures look: one palette, one font size, files that are the same bytes for the same data.

Colours are Okabe and Ito's, told apart by colour-blind readers; methods differ in marker as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bmd_pipeline.io.files import write_bytes

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
