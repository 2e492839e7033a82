"""Episodes as pictures: GIFs that a page can carry, and stills beside each other."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bmd_pipeline.io.layout import MARK

# ---- Frames of an episode as a GIF that a page can carry ----

LAST_MS = 1_500
"""How long the last frame stands before the clip begins anew."""
_LADDER = ((128, 1.0, 1), (64, 1.0, 1), (64, 0.75, 1), (64, 0.6, 2), (32, 0.6, 3), (16, 0.5, 4))
"""Colours, scale, and which frames are kept (every n-th), from the best picture to the smallest file."""
_PALETTE_FRAMES = 6
_CELL = 8
"""Steps of a colour's components that are one to the palette."""


def encode_gif(frames: Sequence[NDArray[np.uint8]], frame_ms: int, max_bytes: int) -> bytes:
    """Encodes a clip that is shown over and over.

    Args:
        frames: pictures (height, width, 3), at least one.
        frame_ms: how long each is shown, in milliseconds.
        max_bytes: size that the clip should keep to. Colours, pixels and frames are given up for it; where even that is
            not enough, the smallest that was found is returned.
    """
    height, width, _ = frames[0].shape
    smallest = b""
    for colours, scale, step in _LADDER:
        kept = [*frames[: len(frames) - 1 : step], frames[-1]]  # an episode's end is what it is about
        size = max(1, round(scale * width)), max(1, round(scale * height))
        pictures = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in kept]
        clip = _encode(pictures, step * frame_ms, colours)
        if len(clip) <= max_bytes:
            return clip
        smallest = min(smallest or clip, clip, key=len)
    return smallest


def _encode(pictures: Sequence[Image.Image], frame_ms: int, colours: int) -> bytes:
    """One palette for all frames and no dithering: what doesn't move takes no bytes."""
    palette = _choose_palette(pictures, colours)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    file = io.BytesIO()
    durations = [*[frame_ms] * len(others), LAST_MS]
    first.save(
        file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False, comment=MARK
    )
    return file.getvalue()


def _choose_palette(pictures: Sequence[Image.Image], colours: int) -> Image.Image:
    """A palette in which what is small (a goal) has a colour too: colours count by the root of the area they fill."""
    chosen = np.linspace(0, len(pictures) - 1, min(_PALETTE_FRAMES, len(pictures))).round().astype(int)
    pixels = np.concatenate([np.asarray(pictures[i]).reshape(-1, 3) for i in chosen])
    cells, counts = np.unique(pixels // _CELL, axis=0, return_counts=True)
    weighted = np.repeat(cells * _CELL + _CELL // 2, np.sqrt(counts).round().astype(int), axis=0)
    return Image.fromarray(weighted[None].astype(np.uint8)).quantize(colours, Image.Quantize.MEDIANCUT)


# ---- Stills of episodes, one beside the other, as one picture, in which modes are seen at a glance ----

_GAP, _BETWEEN, _CAPTION = 10, 2, 20  # pixels between strips, between stills, of a caption's line
_PAPER, _INK, _PATH, _OUTLINE = "white", "black", "#ffb000", "#40280a"
_QUALITY, _OVERSIZE = 82, 3


@dataclass(frozen=True)
class Strip:
    """Stills of one episode."""

    caption: str  # what stands above them
    stills: Sequence[NDArray[np.uint8]]  # pictures (size, size, 3) in their order
    # For each still the path so far (n, 2) of what modes differ in, in shares of width and height from the upper left.
    paths: Sequence[NDArray[np.float64]]


def draw_strips(strips: Sequence[Strip], columns: int, size: int) -> bytes:
    """Draws strips in rows, as a WebP file.

    Args:
        strips: at least one, all of as many stills.
        columns: how many stand side by side.
        size: pixels of a still's side in the picture.
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
    page.save(file, "WEBP", quality=_QUALITY, method=6, xmp=MARK.encode())
    return file.getvalue()


def _draw_still(still: NDArray[np.uint8], path: NDArray[np.float64], size: int) -> Image.Image:
    """Draws the path in a larger picture and makes that small: lines have no steps then."""
    large = _OVERSIZE * size
    picture = Image.fromarray(still).resize((large, large), Image.Resampling.LANCZOS)
    _draw_line(picture, path, _OVERSIZE)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def draw_path(frame: NDArray[np.uint8], path: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A square frame (size, size, 3) with a path (n, 2) over it, in shares of width and height from the upper left."""
    picture = Image.fromarray(frame)
    _draw_line(picture, path, 1)
    return np.array(picture)


def _draw_line(picture: Image.Image, path: NDArray[np.float64], scale: int) -> None:
    points = [(x, y) for x, y in (picture.width * path).tolist()]
    if len(points) > 1:
        draw = ImageDraw.Draw(picture)
        for colour, width in ((_OUTLINE, 3.5), (_PATH, 2.0)):
            draw.line(points, fill=colour, width=round(scale * width), joint="curve")
