"""Episodes with their true modes: what evaluation is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmd_pipeline.environments.base import Labelling
from bmd_pipeline.errors import TaskError
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.rl.rollout import EpisodeBatch


def label_episodes(
    batch: EpisodeBatch, labellings: Sequence[Labelling], method: str, seed: int, num_codes: int
) -> Episodes:
    """Rows of a batch of episodes under every labelling.

    Args:
        batch: what was played.
        labellings: the task's true modes.
        method: name of the policy in the rows.
        seed: training seed of the policy.
        num_codes: mode codes K of the agent.

    Raises:
        TaskError: a labelling breaks its contract.
    """

    def to_array(values: Tensor, dtype: type[np.generic]) -> NDArray[Any]:
        return values.cpu().numpy().astype(dtype)

    information = torch.zeros_like(batch.episode_return) if batch.information is None else batch.information
    return Episodes(
        policy=method,
        seed=seed,
        num_codes=num_codes,
        code=to_array(batch.code, np.int64),
        success=to_array(batch.success, np.bool_),
        length=to_array(batch.length, np.int64),
        episode_return=to_array(batch.episode_return, np.float64),
        information=to_array(information, np.float64),
        labellings={labelling.name: _weigh(labelling, batch) for labelling in labellings},
    )


def _weigh(labelling: Labelling, batch: EpisodeBatch) -> ModeWeights:
    raw = labelling.weigh(batch.track, batch.length, batch.success).double().cpu().numpy()
    expected = (len(batch.success), len(labelling.modes))
    if raw.shape != expected:
        raise TaskError(f"labelling {labelling.name!r}: weights must be {expected}, got {raw.shape}")
    sums = raw.sum(axis=1)
    if not (np.all(raw >= 0) and np.allclose(sums, 1.0, atol=1e-4)):
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise TaskError(
            f"labelling {labelling.name!r}: weights must be >= 0 with rows that sum to 1, "
            f"got {raw[worst].tolist()} for episode {worst}"
        )
    return ModeWeights(tuple(labelling.modes), raw / sums[:, None])
