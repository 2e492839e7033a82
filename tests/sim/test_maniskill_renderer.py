"""Pictures of ManiSkill scenes, where there is a Vulkan device."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import backend
from bmd_pipeline.sim.render import EpisodeRecorder, find_task
from bmd_pipeline.tasks import registry


def test_says_what_to_install_where_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "have_render_device", lambda: False)
    filming = registry.load_filming("Reach")
    with pytest.raises(TaskError, match=r"no Vulkan device .* lavapipe >= 24.3 .*apt-get install .*VK_ICD_FILENAMES"):
        filming.require_renderer()


@pytest.mark.skipif(not backend.have_render_device(), reason="no Vulkan device to render with (Mesa's lavapipe)")
def test_the_picture_shows_where_the_tip_is() -> None:
    filming = registry.load_filming("Reach")
    expert = registry.make_expert("Reach", {})
    recorder = EpisodeRecorder(find_task(expert), filming)
    expert.demonstrate(0, 7)
    recording = recorder.recording
    renderer = filming.make_renderer(96)
    start, end = (renderer.render(recording.arrangements[step]).astype(int) for step in (0, -1))
    again = renderer.render(recording.arrangements[0]).astype(int)
    renderer.close()
    expert.close()
    assert start.shape == (96, 96, 3)
    assert np.abs(start - again).max() <= 1  # a picture depends on the arrangement alone
    moved = np.abs(start - end).sum(2) > 60
    x, y = (96 * filming.camera.project(np.array(recording.places[-1:]))[0]).astype(int)
    assert moved[y - 8 : y + 8, x - 8 : x + 8].any()  # the hand came there
    assert 0.02 < moved.mean() < 0.6  # and what stands still stands still
