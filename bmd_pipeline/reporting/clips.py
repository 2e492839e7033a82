"""Frames of an episode as a GIF that a page can carry."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    smallest = b""
    for clip in _attempts(frames, frame_ms):
        if len(clip) <= max_bytes:
            return clip
        smallest = min(smallest or clip, clip, key=len)
    return smallest


def _attempts(frames: Sequence[NDArray[np.uint8]], frame_ms: int) -> Iterator[bytes]:
    height, width, _ = frames[0].shape
    for colours, scale, step in _LADDER:
        kept = [*frames[: len(frames) - 1 : step], frames[-1]]  # an episode's end is what it is about
        size = max(1, round(scale * width)), max(1, round(scale * height))
        pictures = [Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS) for frame in kept]
        yield _encode(pictures, step * frame_ms, colours)


def _encode(pictures: Sequence[Image.Image], frame_ms: int, colours: int) -> bytes:
    """One palette for all frames and no dithering: what doesn't move takes no bytes."""
    palette = _choose_palette(pictures, colours)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    file = io.BytesIO()
    durations = [*[frame_ms] * len(others), LAST_MS]
    first.save(file, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)
    return file.getvalue()


def _choose_palette(pictures: Sequence[Image.Image], colours: int) -> Image.Image:
    """A palette in which what is small (a goal) has a colour too: colours count by the root of the area they fill."""
    chosen = np.linspace(0, len(pictures) - 1, min(_PALETTE_FRAMES, len(pictures))).round().astype(int)
    pixels = np.concatenate([np.asarray(pictures[i]).reshape(-1, 3) for i in chosen])
    cells, counts = np.unique(pixels // _CELL, axis=0, return_counts=True)
    weighted = np.repeat(cells * _CELL + _CELL // 2, np.sqrt(counts).round().astype(int), axis=0)
    return Image.fromarray(weighted[None].astype(np.uint8)).quantize(colours, Image.Quantize.MEDIANCUT)
