"""A run that takes seconds: a point that walks to one of four goals, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bmd_pipeline.config.schema import RunConfig
from bmd_pipeline.stages.console import Reporter, Stop, Stopped
from bmd_pipeline.stages.discover import discover

TASK = "GaussianMixture"
QUIET = Reporter("quiet")
OFTEN: dict[str, Any] = {"env": {"goal_radius": 0.3}}
"""So short a training succeeds often enough here for its behaviours to show."""


def make_config(**changes: dict[str, Any]) -> RunConfig:
    """The small run, with some settings of each section changed."""
    small = {"hidden_sizes": (16,)}
    values: dict[str, Any] = {
        "task": {"name": TASK},
        "collect": {"num_episodes": 40},
        "pretrain": {
            "iterations": 400,
            "batch_size": 128,
            "policy": {"n_obs_steps": 1, "hidden_sizes": (64, 64)},
        },
        "discover": {
            "num_modes": 6,
            "min_demonstrations": 8,
            "num_envs": 64,
            "heldout_episodes": 128,  # two rounds
            "hindsight_episodes": 192,
            "warmup_iterations": 2,
            "teaching": {"steps": 300, "batch_size": 128, "strengths": (1.0, 2.0)},
            "inference": small | {"fit_steps": 100},
            "steering": small,
        },
        "finetune": {
            "iterations": 4,
            "num_envs": 64,
            "ppo": {"minibatch_size": 128, "value_hidden_sizes": (16,)},
            "selection": {"interval": 2, "episodes": 64},
        },
    }
    for name, change in changes.items():
        values[name] = values.get(name, {}) | change
    return RunConfig.model_validate(values)


def find_modes(
    config: RunConfig,
    policy: Path,
    demos: Path | None,
    output: Path,
    *,
    reporter: Reporter = QUIET,
    stop: Stop | None = None,
) -> None:
    """`discover` with seed 0."""
    discover(config, policy=policy, demos=demos, output=output, seed=0, num_workers=1, reporter=reporter, stop=stop)


class Impatient(Stop):
    """Asks to stop the n-th time somebody looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.left = looks

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "the test" if self.left <= 0 else None


def play_in_pieces(play: Callable[[Stop], None], looks: int) -> int:
    """Starts a stage again and again, each time with a little more patience; returns how often it stopped."""
    for stops in range(60):
        try:
            play(Impatient(looks + 7 * stops))
            return stops
        except Stopped:
            continue
    raise AssertionError("it never finished")
