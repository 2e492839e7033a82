"""Whether a policy does what it is asked for.

A code's own behaviour is the true mode that most of its successes on selection seeds show, so that it is not chosen on
the episodes that it is judged on. *Obeyed* is the share of a code's successes that show it. Codes with the same
behaviour count once, their episodes pooled; a code without a success on selection seeds has no behaviour, and 0 is
obeyed. A policy without codes is asked for each of the task's modes in turn, and can only do what it does anyway: what
is obeyed is the mode's share of its successes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.success import count_modes

Floats = NDArray[np.float64]


def choose_behaviours(part: Episodes, labelling: str) -> tuple[str | None, ...]:
    """The behaviour of each code: the true mode that most of its successes show, None without a success.

    Args:
        part: episodes on selection seeds.
        labelling: whose modes.
    """
    modes, weights = part.labellings[labelling].modes, part.labellings[labelling].weights
    behaviours = []
    for code in range(part.num_codes):
        mine = part.code == code
        successes, _ = count_modes(part.success[mine], weights[mine])
        behaviours.append(modes[int(successes.argmax())] if successes.any() else None)
    return tuple(behaviours)


def obeyed_features(part: Episodes, labelling: str) -> Floats:
    """What each episode adds to the sums that `compute_obeyed` reads: (num_episodes, 2 num_modes + 1).

    Successes by the mode that was asked for, those of them that show it, and the number of behaviours over the number
    of episodes: the sum over as many episodes, also a resampled one, is the number of behaviours.
    """
    modes, weights = part.labellings[labelling].modes, part.labellings[labelling].weights
    won = part.success[:, None].astype(np.float64)
    if part.num_codes == 1:
        asked, behaviours = np.ones_like(weights), len(modes)
    else:
        own = part.behaviours[labelling]
        wanted = np.array([[mode == behaviour for mode in modes] for behaviour in own], np.float64)
        asked, behaviours = wanted[part.code], len(set(own) - {None}) + own.count(None)
    count = np.full((len(part), 1), behaviours / len(part))
    return np.hstack([won * asked, won * asked * weights, count])


def compute_obeyed(sums: Floats) -> tuple[Floats, Floats]:
    """Mean over behaviours of the share of obeyed commands, and the smallest one.

    Args:
        sums: (..., 2 num_modes + 1) sums of `obeyed_features`.

    Returns:
        mean and worst, (...) each in [0, 1]; a behaviour that is asked for without success counts as 0.
    """
    num_modes = sums.shape[-1] // 2
    asked, shown = sums[..., :num_modes], sums[..., num_modes : 2 * num_modes]
    behaviours = np.rint(sums[..., -1])
    tried = asked > 0
    share = np.minimum(np.divide(shown, asked, out=np.zeros_like(shown), where=tried), 1.0)
    mean = share.sum(axis=-1) / behaviours
    worst = np.where(tried.sum(axis=-1) < behaviours, 0.0, np.where(tried, share, 1.0).min(axis=-1))
    return np.minimum(mean, 1.0), worst


def obeyed_by_code(behaviour: str | None, modes: Sequence[str], successes: Floats) -> float:
    """Share of one code's successes by mode (num_modes,) that show its behaviour; 0 without either."""
    total = float(successes.sum())
    return float(successes[modes.index(behaviour)]) / total if behaviour is not None and total > 0 else 0.0
