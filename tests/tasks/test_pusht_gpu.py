"""The batched-tensor environment; on the CPU, ManiSkill runs one scene through the same interface."""

from __future__ import annotations

import pytest
import torch

from bmd_pipeline.tasks.pusht.env import PushTTask, make_env
from bmd_pipeline.tasks.pusht.options import Options


def test_means_the_same_as_the_scenes_on_the_cpu() -> None:
    batched = PushTTask(Options(), 1, batched=True)
    scenes = PushTTask(Options(), 1)
    for seed in (0, 1):  # the second time, a reset of a scene in use
        torch.testing.assert_close(batched.reset(seed), scenes.reset(seed), atol=1e-4, rtol=0)
        for _ in range(8):  # free motion
            action = torch.tensor([[0.5, -0.6]])
            ours, theirs = batched.step(action), scenes.step(action)
            torch.testing.assert_close(ours.obs, theirs.obs, atol=1e-3, rtol=0)
            torch.testing.assert_close(ours.track_path, theirs.track_path, atol=1e-3, rtol=0)
            torch.testing.assert_close(ours.reward, theirs.reward, atol=1e-3, rtol=0)
    batched.close()
    scenes.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_and_resets_on_a_gpu() -> None:
    env = make_env(Options(horizon=8), 16, device="cuda", num_workers=1)
    obs = env.reset(0)
    assert obs.shape == (16, 8)
    assert obs.device.type == "cuda"
    torch.testing.assert_close(env.reset(0), obs, atol=1e-4, rtol=0)
    for _ in range(2):
        step = env.step_chunk(torch.rand(16, 4, 2, device="cuda") * 2.0 - 1.0)
        assert torch.isfinite(step.obs_path).all()
        assert torch.isfinite(step.reward).all()
    assert step.truncated.all()
    env.close()
