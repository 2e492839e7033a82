"""Noise with a memory."""

from __future__ import annotations

import numpy as np

from bmd_pipeline.environments.base import PERSISTENCE, draw_noise


def test_has_the_size_and_the_memory_it_should() -> None:
    noise = draw_noise(0.3, (40_000, 2), np.random.default_rng(0))
    settled = noise[100:]
    np.testing.assert_allclose(settled.std(axis=0), 0.3, rtol=0.05)
    for column in settled.T:
        assert abs(np.corrcoef(column[1:], column[:-1])[0, 1] - PERSISTENCE) < 0.02
    assert abs(np.corrcoef(settled.T)[0, 1]) < 0.05


def test_starts_at_rest_and_scales() -> None:
    small, large = (draw_noise(std, (10, 3), np.random.default_rng(1)) for std in (0.1, 0.2))
    np.testing.assert_allclose(large, 2.0 * small)
    assert not draw_noise(0.0, (10, 3), np.random.default_rng(1)).any()
    first = np.array([draw_noise(1.0, (1, 1), np.random.default_rng(seed))[0, 0] for seed in range(2000)])
    assert abs(first.std() - np.sqrt(1.0 - PERSISTENCE**2)) < 0.05  # it begins at zero
