"""Pictures of MuJoCo scenes, where there is an OpenGL that needs no display."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import render

pytest.importorskip("mujoco")

_SCRIPT = """
import numpy as np
from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim.render import EpisodeRecorder, find_task
from bmd_pipeline.tasks import registry
filming = registry.load_filming("Kitchen")
try:
    filming.require_renderer()
except TaskError as error:
    raise SystemExit(f"no renderer: {error}")
expert = registry.make_expert("Kitchen", {})
recorder = EpisodeRecorder(find_task(expert), filming)
expert.demonstrate(0, 7)
recording = recorder.recording
renderer = filming.make_renderer(96)
start, end = (renderer.render(recording.arrangements[step]).astype(int) for step in (0, -1))
again = renderer.render(recording.arrangements[0]).astype(int)
renderer.close()
moved = np.abs(start - end).sum(2) > 60
x, y = (96 * filming.camera.project(np.array(recording.places[-1:]))[0]).astype(int)
print(start.shape == (96, 96, 3), (start == again).all(), moved[y - 8 : y + 8, x - 8 : x + 8].any(), moved.mean() < 0.6)
"""


def test_says_what_to_install_where_there_is_no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(TaskError, match=r"no OpenGL .*apt-get install libegl1"):
        render.choose_opengl()


def test_takes_what_the_user_named_or_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    render.choose_opengl()
    assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "there" if name == "OSMesa" else None)
    render.choose_opengl()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_the_picture_shows_where_the_hand_is() -> None:
    """In a process of its own: MuJoCo chooses its OpenGL when it is imported."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False)
    if done.stderr.startswith("no renderer"):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 4
