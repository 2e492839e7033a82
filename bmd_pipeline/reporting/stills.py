"""Stills of episodes, one beside the other, as one picture: what tells modes apart at a glance."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP, _BETWEEN, _CAPTION = 10, 2, 20  # pixels between strips, between stills, of a caption's line
_PAPER, _INK, _PATH, _OUTLINE = "white", "black", "#ffb000", "#40280a"
_QUALITY, _OVERSIZE = 82, 3


@dataclass(frozen=True)
class Strip:
    """Stills of one episode.

    Attributes:
        caption: what stands above them.
        stills: pictures (size, size, 3) in their order.
        paths: for each still, the path so far (n, 2) of what tells modes apart, in shares of the picture's width and
            height from the upper left.
    """

    caption: str
    stills: Sequence[NDArray[np.uint8]]
    paths: Sequence[NDArray[np.float64]]


def draw_strips(strips: Sequence[Strip], columns: int, size: int) -> bytes:
    """Draws strips in rows.

    Args:
        strips: at least one, all of as many stills.
        columns: how many stand side by side.
        size: pixels of a still's side in the picture.

    Returns:
        A WebP file.
    """
    per_strip = len(strips[0].stills)
    width, height = per_strip * (size + _BETWEEN) - _BETWEEN, _CAPTION + size
    rows = math.ceil(len(strips) / columns)
    columns = min(columns, len(strips))
    page = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP), _PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=14)
    for index, strip in enumerate(strips):
        x, y = (index % columns) * (width + _GAP), (index // columns) * (height + _GAP)
        draw.text((x + 2, y + 1), strip.caption, fill=_INK, font=font)
        for i, (still, path) in enumerate(zip(strip.stills, strip.paths, strict=True)):
            page.paste(_draw_still(still, path, size), (x + i * (size + _BETWEEN), y + _CAPTION))
    file = io.BytesIO()
    page.save(file, "WEBP", quality=_QUALITY, method=6)
    return file.getvalue()


def _draw_still(still: NDArray[np.uint8], path: NDArray[np.float64], size: int) -> Image.Image:
    """Draws the path in a larger picture and makes that small: lines have no steps then."""
    large = _OVERSIZE * size
    picture = Image.fromarray(still).resize((large, large), Image.Resampling.LANCZOS)
    points = [(x, y) for x, y in (large * path).tolist()]
    if len(points) > 1:
        draw = ImageDraw.Draw(picture)
        for colour, width in ((_OUTLINE, 3.5), (_PATH, 2.0)):
            draw.line(points, fill=colour, width=round(_OVERSIZE * width), joint="curve")
    return picture.resize((size, size), Image.Resampling.LANCZOS)
