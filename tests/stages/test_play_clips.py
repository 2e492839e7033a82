"""Which control steps a clip shows, and how fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bmd_pipeline.sim.render import Camera, Recording
from bmd_pipeline.stages import play
from bmd_pipeline.stages.play import MAX_FRAMES, render_clip, render_stills

CAMERA = Camera(eye=(0.0, -5.0, 5.0), target=(0.0, 0.0, 0.0))


class Numbered:
    """Remembers what it was asked to render."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def render(self, arrangement: int) -> NDArray[np.uint8]:
        self.asked.append(arrangement)
        return np.full((8, 8, 3), arrangement % 256, np.uint8)

    def close(self) -> None: ...


def make_recording(length: int) -> Recording:
    steps = range(length + 1)
    return Recording(list(steps), [(0.1 * step, 0.0, 0.0) for step in steps], [torch.zeros(1) for _ in steps])


@pytest.mark.parametrize(
    ("length", "hertz", "every", "frame_ms"),
    [
        (30, 20.0, 1, 50),
        (59, 20.0, 1, 50),
        (60, 20.0, 2, 100),
        (200, 20.0, 4, 100),
        (10, 12.5, 1, 80),
        (5, None, 1, 100),
    ],
)
def test_shows_short_episodes_whole_and_long_ones_faster(
    length: int, hertz: float | None, every: int, frame_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Numbered()
    given: list[tuple[int, int, int]] = []

    def encode(frames: list[NDArray[np.uint8]], frame_ms: int, max_bytes: int) -> bytes:
        given.append((len(frames), frame_ms, max_bytes))
        return b"clip"

    monkeypatch.setattr(play, "encode_gif", encode)
    clip = render_clip(make_recording(length), renderer, CAMERA, control_hz=hertz, max_bytes=1_000_000)
    assert clip == b"clip"
    assert renderer.asked == [*range(0, length, every), length]
    assert len(renderer.asked) <= MAX_FRAMES + 1
    assert given == [(len(renderer.asked), frame_ms, 1_000_000)]


def test_stills_carry_the_path_up_to_them() -> None:
    renderer = Numbered()
    strip = render_stills(make_recording(10), renderer, CAMERA, caption="left", moments=(0.35, 1.0))
    assert renderer.asked == [4, 10]
    assert [len(path) for path in strip.paths] == [5, 11]
    np.testing.assert_allclose(strip.paths[0][0], (0.5, 0.5))
