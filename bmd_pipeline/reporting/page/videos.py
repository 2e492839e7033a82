"""Clips of a task, carried inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

FOLDER = "videos"
MAX_BYTES = 3_500_000
"""Bytes of clips that a page carries; the rest is named and left beside it."""

TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""Media types of the clips that a page shows, by suffix."""


@dataclass(frozen=True)
class Video:
    """One clip.

    Attributes:
        name: its file name.
        type: its media type.
        url: a `data:` address that holds it, or None if the page would become too large.
    """

    name: str
    type: str
    url: str | None


def find_videos(results: Path) -> list[Video]:
    """Clips in a task's `videos` folder by name; those that fit are read."""
    videos: list[Video] = []
    left = MAX_BYTES
    for path in sorted((results / FOLDER).glob("*")):
        if path.suffix not in TYPES or not path.is_file():
            continue
        size = path.stat().st_size
        url = None
        if size <= left:
            left -= size
            url = f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        videos.append(Video(path.name, TYPES[path.suffix], url))
    return videos
