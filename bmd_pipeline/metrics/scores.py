"""The scores that policies are compared by, as functions of sums over episodes.

One call scores a policy, thousands of bootstrap resamples of it, or both at once; the numbers are those of eval.json.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.entropy import mode_entropy
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.obeyed import compute_obeyed, obeyed_features
from bmd_pipeline.metrics.success import count_present, count_solved, mode_weighted_success

Floats = NDArray[np.float64]

COMPARED = (
    "success_rate",
    "mode_weighted_success",
    "present",
    "solved",
    "mode_entropy",
    "obeyed",
    "obeyed_worst",
    "episode_return",
)
"""Scores that mean the same for every policy."""
SCORES = (*COMPARED, "mutual_information")
"""All scores; information says nothing about policies without codes, so nothing is tested on it."""


def episode_features(part: Episodes, labelling: str) -> Floats:
    """What each episode adds to the sums: (num_episodes, 4 num_modes + 3).

    Successes by mode, visits by mode, `obeyed_features`, return, information.
    """
    weights = part.labellings[labelling].weights
    rest = np.stack([part.episode_return, part.information], axis=1)
    return np.hstack([part.success[:, None] * weights, weights, obeyed_features(part, labelling), rest])


def compute_scores(sums: Floats, num_episodes: int, tau: float) -> dict[str, Floats]:
    """Scores from summed features.

    Args:
        sums: (..., 4 num_modes + 3) sums of `episode_features`.
        num_episodes: episodes that were summed.
        tau: success rate from which a present mode is solved.

    Returns:
        (...) by name, in the order of `SCORES`.
    """
    num_modes = sums.shape[-1] // 4
    successes, visits = sums[..., :num_modes], sums[..., num_modes : 2 * num_modes]
    obeyed, worst = compute_obeyed(sums[..., 2 * num_modes : -2])
    scores = {
        # An episode's weights sum to one, so that its success is counted once.
        "success_rate": np.minimum(successes.sum(axis=-1) / num_episodes, 1.0),
        "mode_weighted_success": mode_weighted_success(successes, visits),
        "present": count_present(successes),
        "solved": count_solved(successes, visits, tau),
        "mode_entropy": mode_entropy(successes),
        "obeyed": obeyed,
        "obeyed_worst": worst,
        "episode_return": sums[..., -2] / num_episodes,
        "mutual_information": sums[..., -1] / num_episodes,
    }
    return {name: scores[name] for name in SCORES}
