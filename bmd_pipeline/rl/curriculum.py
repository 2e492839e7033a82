"""The short-to-long horizon curriculum.

Source: BMD (arXiv 2605.11387): the horizon grows from H_0 to T over the first iterations.
"""

from __future__ import annotations

from bmd_pipeline.config.schema import CurriculumConfig


def compute_max_steps(config: CurriculumConfig, iteration: int, horizon: int) -> int:
    """Control steps of an episode at an iteration: linear from start_fraction·horizon to horizon.

    Args:
        config: start and duration.
        iteration: counted from 0.
        horizon: the task's time limit.
    """
    progress = min(1.0, iteration / config.iterations)
    share = config.start_fraction + (1.0 - config.start_fraction) * progress
    return max(1, round(share * horizon))
