"""ManiSkill without a rendering device."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bmd_pipeline.errors import TaskError
from bmd_pipeline.sim import backend

_SCRIPT = """
import sapien.render
from bmd_pipeline.sim import backend
env = backend.make_maniskill_env("PickCube-v1", control_mode="pd_joint_delta_pos")
obs, *_ = env.step(env.action_space.sample())
print(backend.have_render_device(), sapien.render.RenderMaterial is backend.NullResource, tuple(obs.shape))
"""


def test_builds_and_steps_a_stock_task_with_the_device_hidden() -> None:
    environment = os.environ | {"VK_ICD_FILENAMES": "/none"}
    done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=2)[:2] == ["False", "True"]


def test_touches_nothing_where_a_device_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    import sapien.render

    before = sapien.render.RenderMaterial
    monkeypatch.setattr(backend, "have_render_device", lambda: True)
    backend.enable_headless.__wrapped__()
    assert sapien.render.RenderMaterial is before


def test_null_resources_take_anything() -> None:
    material = backend.NullResource(base_color=[1, 0, 0, 1])
    material.set_base_color_texture(None)
    material.roughness = 0.5
    assert material.base_color == [1, 0, 0, 1]
    assert material.roughness == 0.5


def test_gpu_simulation_that_can_not_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no library for GPUs\nand no way to get it")

    monkeypatch.setattr("gymnasium.make", fail)
    with pytest.raises(
        TaskError, match=r"^task\.physics is cuda, but PushT-v1 can't start there \(OSError: no .* it\)"
    ):
        backend.make_maniskill_env("PushT-v1", sim_backend="physx_cuda")
    with pytest.raises(OSError, match="no library"):  # on the CPU it is our fault, or the installation's
        backend.make_maniskill_env("PushT-v1")
