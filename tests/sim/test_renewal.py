"""Resets leave nothing behind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.tasks.pusht.env import REST_QPOS, PushTScene


def _push(scene: PushTScene, seed: int, steps: int = 60) -> NDArray[np.float64]:
    """Drives noisily at the T from a fixed start; states (steps, 6)."""
    scene.place([*REST_QPOS, -0.2, 0.05, 2.0])
    generator = np.random.default_rng(seed)
    states = []
    for _ in range(steps):
        state = np.array(scene.read())
        gap = state[3:5] - state[:2]
        scene.move(np.clip(0.7 * gap / np.linalg.norm(gap) + 0.4 * generator.standard_normal(2), -1.0, 1.0).tolist())
        states.append(scene.read())
    return np.array(states)


def test_a_trajectory_does_not_depend_on_what_went_before() -> None:
    used, fresh = PushTScene(), PushTScene()
    first = _push(used, seed=0)
    for seed in (1, 2, 3):
        _push(used, seed)
    assert np.ptp(first[:, 5]) > 0.05  # contact, where differences would grow
    np.testing.assert_array_equal(_push(used, seed=0), first)
    np.testing.assert_array_equal(_push(fresh, seed=0), first)


def test_gravity_and_time_step_survive() -> None:
    scene = PushTScene()
    before = scene.env.scene.px.timestep
    scene.place([*REST_QPOS, -0.2, 0.05, 2.0])
    assert scene.env.scene.px.timestep == before
    assert scene.env.scene.px is scene.env.scene.sub_scenes[0].physx_system
    np.testing.assert_allclose(scene.env.scene.px.config.gravity, [0.0, 0.0, -9.81], atol=1e-6)
