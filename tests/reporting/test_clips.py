"""GIFs that keep to a size."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bmd_pipeline.reporting.clips import LAST_MS, encode_gif


def make_frames(count: int, size: int = 48) -> list[NDArray[np.uint8]]:
    """A small green square that walks over a noisy ground."""
    ground = np.random.default_rng(0).integers(90, 160, (size, size, 3)).astype(np.uint8)
    frames = []
    for index in range(count):
        frame = ground.copy()
        frame[20:26, index : index + 6] = (0, 250, 0)
        frames.append(frame)
    return frames


def read(clip: bytes) -> tuple[list[NDArray[np.uint8]], list[int]]:
    with Image.open(io.BytesIO(clip)) as image:
        frames, durations = [], []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(int(image.info.get("duration", 0)))
    return frames, durations


def test_every_frame_is_there_with_its_time_and_its_small_things() -> None:
    frames, durations = read(encode_gif(make_frames(12), 50, 1_000_000))
    assert durations == [50] * 11 + [LAST_MS]
    assert {frame.shape for frame in frames} == {(48, 48, 3)}
    for index, frame in enumerate(frames):
        red, green, blue = frame[23, index + 3].astype(int)
        assert (green > 200, red < 60, blue < 60) == (True, True, True)


def test_gives_up_colours_pixels_and_frames_for_size() -> None:
    frames = make_frames(30, 96)
    large = encode_gif(frames, 50, 10_000_000)
    small = encode_gif(frames, 50, len(large) // 4)
    assert len(small) <= len(large) // 4
    shown, durations = read(small)
    assert sum(durations[:-1]) == pytest.approx(29 * 50, abs=150)  # it lasts as long
    assert shown[-1].shape[0] < 96


def test_returns_the_smallest_where_nothing_fits() -> None:
    assert 0 < len(encode_gif(make_frames(4), 50, 1)) < len(encode_gif(make_frames(4), 50, 1_000_000))


def test_the_end_is_always_shown() -> None:
    frames = [np.full((32, 32, 3), 10 * index, np.uint8) for index in range(8)]
    shown, _ = read(encode_gif(frames, 50, 1))
    assert abs(int(shown[-1].mean()) - 70) <= 8
