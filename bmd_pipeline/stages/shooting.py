"""From a recorded episode to a clip of it, and to stills."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bmd_pipeline.reporting.clips import Strip, encode_gif
from bmd_pipeline.sim.render import Camera, Recording, Studio

MAX_FRAMES = 60
MAX_FRAME_MS = 100
"""Of long episodes every n-th control step is shown, and they run faster than life: nobody watches half a minute."""


def shoot_clip(recording: Recording, studio: Studio, control_hz: float | None, max_bytes: int) -> bytes:
    """A GIF of an episode.

    Args:
        recording: the episode.
        studio: where it is photographed.
        control_hz: control steps per second, or None for tasks without a clock.
        max_bytes: size it should keep to.
    """
    every = math.ceil((recording.length + 1) / MAX_FRAMES)
    steps = [*range(0, recording.length, every), recording.length]
    frames = [studio.render(recording.arrangements[step]) for step in steps]
    step_ms = 1000.0 / control_hz if control_hz else MAX_FRAME_MS
    return encode_gif(frames, round(min(every * step_ms, MAX_FRAME_MS)), max_bytes)


def shoot_stills(
    recording: Recording, studio: Studio, camera: Camera, *, caption: str, moments: Sequence[float]
) -> Strip:
    """Stills of an episode.

    Args:
        recording: the episode.
        studio: where it is photographed.
        camera: the studio's.
        caption: what stands above them.
        moments: when, in shares of the episode.
    """
    places = camera.project(np.array(recording.places))
    steps = [round(moment * recording.length) for moment in moments]
    stills = [studio.render(recording.arrangements[step]) for step in steps]
    return Strip(caption, stills, [places[: step + 1] for step in steps])
