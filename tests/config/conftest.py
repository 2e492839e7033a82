"""A small config folder of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

FILES = {
    "config.yaml": (
        "preset: cpu\nseed: 1\nseeds: [0, 1]\ndiscover: {num_modes: 2}\nfinetune:\n  iterations: 10\n  num_envs: 10\n"
        "  ppo: {minibatch_size: 8}\n"
    ),
    "presets/cpu.yaml": "",
    "presets/gpu.yaml": "finetune: {num_envs: 4000}",
    "presets/smoke.yaml": "finetune: {iterations: 2, num_envs: 4}\nevaluate: {episodes: 16}",
    "tasks/GaussianMixture.yaml": "finetune: {num_envs: 20}\npresets:\n  smoke:\n    evaluate: {episodes: 24}\n",
    "tasks/Shifted.yaml": "extends: GaussianMixture\ntask: {env: {reward: shifted}}\npresets: {smoke: {seed: 9}}\n",
}


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """config.yaml, three presets, one task and one variant."""
    for name, text in FILES.items():
        path = tmp_path / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "config"
