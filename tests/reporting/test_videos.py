"""Clips inside the page."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.reporting import sources
from bmd_pipeline.reporting.sources import find_videos


@pytest.mark.parametrize("target", ["/etc/hostname", "nowhere", "."])
def test_a_link_is_not_carried_into_the_page(tmp_path: Path, target: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "leak.gif").symlink_to(target)
    with pytest.raises(ArtifactError, match=r"videos/leak\.gif is a link"):
        find_videos(tmp_path)


def test_clips_are_carried_until_the_page_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_videos(tmp_path) == []
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "b.mp4").write_bytes(b"x" * 6)
    (folder / "a.gif").write_bytes(b"GIF89a")
    (folder / "c.gif").write_bytes(b"y")
    (folder / "notes.txt").write_text("no clip")
    monkeypatch.setattr(sources, "MAX_VIDEO_BYTES", 11)
    found = find_videos(tmp_path)
    assert [(one.name, one.type, one.url is None) for one in found] == [
        ("a.gif", "image/gif", False),
        ("b.mp4", "video/mp4", True),
        ("c.gif", "image/gif", False),
    ]
    assert found[0].url == f"data:image/gif;base64,{base64.b64encode(b'GIF89a').decode()}"
