"""One mode is blocked: what it helps to try again, to be told another code, or to find one by trial.

The episodes are those of the evaluation. The policy does not see the block, and the block lies on that mode alone: an
episode that takes the mode counts as a failure, and all others stay as they are. Trials are independent, each from a
new start.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics.bootstrap import NUM_RESAMPLES, bootstrap_sums, percentile_interval
from bmd_pipeline.metrics.episodes import Episodes, Floats
from bmd_pipeline.metrics.schemas import Answers, Blocked, Estimate, TrialOutcome
from bmd_pipeline.metrics.scores import divide, is_present
from bmd_pipeline.modes.trials import choose_codes

MAX_TRIALS = 10
"""Trials after which a robot gives up: what works half of the time has then failed ten times once in a thousand."""
ROBOTS = 2000
"""Simulated robots. If one code of two works and the other never does, the standard error of their mean is .02 trials;
if one of eight works it is .08."""
_SURVIVALS_AT_ONCE = 1 << 18  # robots x success rates that fit a processor's cache


def summarise_blocked(
    parts: Sequence[Episodes], labelling: str, confidence: float, rng: np.random.Generator
) -> Blocked | None:
    """Computes a policy's outcomes in worlds where one of its modes is blocked, from its episodes, one part per seed.

    Returns None where the task has a single mode. Parts of a policy with codes must have their behaviours.
    """
    if len(parts[0].labellings[labelling].modes) == 1:
        return None
    observed, resampled = [], []
    for part in parts:
        features = _count_features(part, labelling)
        sums = np.stack([features.sum(axis=0), *bootstrap_sums([features], rng)[:, 0]])
        scores = _score(sums, part, labelling)
        observed.append(scores[0])
        resampled.append(scores[1:])
    mean = np.mean(observed, axis=0)
    # A drawn seed gets any of its resamples: the same seed drawn twice is resampled twice.
    shape = (NUM_RESAMPLES, len(parts))
    picks, draws = rng.integers(len(parts), size=shape), rng.integers(NUM_RESAMPLES, size=shape)
    samples = np.stack(resampled)[picks, draws].mean(axis=1)

    def estimate(*index: int) -> Estimate:
        value = float(mean[index])
        low, high = percentile_interval(samples[:, *index], value, confidence)
        return Estimate(mean=value, low=low, high=high, n=sum(map(len, parts)))

    def tabulate(world: int) -> Answers:
        outcomes = [
            TrialOutcome(**{name: estimate(answer, world, i) for i, name in enumerate(TrialOutcome.model_fields)})
            for answer in range(len(mean))
        ]
        return Answers(**dict(zip(Answers.model_fields, outcomes, strict=False)))

    return Blocked(max_trials=MAX_TRIALS, favourite=tabulate(0), any_mode=tabulate(1))


def _count_features(part: Episodes, labelling: str) -> Floats:
    """What each episode adds to the sums of `_score`: (num_episodes, 2 num_codes (1 + num_modes)).

    By half of its code's episodes and by code: 1, and its success by mode.
    """
    cell = 2 * part.code
    for code in range(part.num_codes):
        mine = np.flatnonzero(part.code == code)
        cell[mine[1::2]] += 1
    won = part.success[:, None] * part.labellings[labelling].weights
    row = np.hstack([np.ones((len(part), 1)), won])
    features: Floats = np.eye(2 * part.num_codes)[cell][:, :, None] * row[:, None, :]
    return features.reshape(len(part), -1)


def _score(sums: Floats, part: Episodes, labelling: str) -> Floats:
    """Outcomes (num_sums, answers, 2, 3): with the favourite blocked and in the mean over modes, as `TrialOutcome`.

    `sums` (num_sums, num_features) are those of `_count_features`, of the part itself and then of its resamples. Which
    mode is the favourite, and which are present, is what the part itself shows. Without a success nothing is present,
    nothing changes, and all trials fail.
    """
    modes = part.labellings[labelling].modes
    table = sums.reshape(len(sums), part.num_codes, 2, 1 + len(modes))
    played, won = table[..., 0], table[..., 1:]
    shown = won[0].sum(axis=(0, 1))
    favourite = int(shown.argmax())
    blocked = np.flatnonzero(is_present(shown)) if shown.any() else np.array([favourite])
    left = won.sum(axis=-1)[..., None] - won[..., blocked]  # successes that the block leaves
    left = np.maximum(np.moveaxis(left, -1, 1), 0.0)  # (num_sums, blocked, codes, halves); never below 0 by a rounding
    played = played[:, None]

    again = divide(left.sum(axis=(-2, -1)), played.sum(axis=(-2, -1)))
    answers = [_count_trials(_survive_repeating(again))]
    if part.num_codes > 1:
        # The best code of one half of the episodes is measured on the other half: the best of many looks too good.
        own = part.behaviours[labelling]
        other = np.array([[mode not in (None, modes[m]) for mode in own] for m in blocked])[..., None]
        known = np.where(other, divide(won.sum(axis=-1), table[..., 0])[:, None], -1.0)
        best = known.argmax(axis=-2)[:, :, None, ::-1]
        told = np.where(other.any(axis=-2), np.take_along_axis(divide(left, played), best, axis=-2)[:, :, 0], 0.0)
        answers.append(_count_trials(_survive_repeating(told)).mean(axis=-2))
        rates = divide(left.sum(axis=-1), played.sum(axis=-1))
        answers.append(_count_trials(_survive_thompson(rates)))
    outcomes = np.stack(answers, axis=1)  # (num_sums, answers, blocked, 3)
    return np.stack([outcomes[:, :, list(blocked).index(favourite)], outcomes.mean(axis=2)], axis=2)


def _count_trials(survival: Floats) -> Floats:
    """Outcomes (..., 3) as `TrialOutcome`, from the chance to have failed in all of the first 0 to `MAX_TRIALS` trials.

    A robot tries until it succeeds, at most `MAX_TRIALS` times; Σ_{t < MAX_TRIALS} survival(t) is how often.
    """
    trials, within = survival[..., :-1].sum(axis=-1), 1.0 - survival[..., -1]
    return np.stack([within / trials, within, trials], axis=-1)


def _survive_repeating(rates: Floats) -> Floats:
    """Chance to have failed in all of the first trials (..., MAX_TRIALS + 1), at one success rate (...) for each."""
    survival: Floats = (1.0 - rates)[..., None] ** np.arange(MAX_TRIALS + 1)
    return survival


def _survive_thompson(rates: Floats) -> Floats:
    """The same for robots that choose among codes of these success rates (..., num_codes)."""
    fail = np.ascontiguousarray(1.0 - rates.reshape(-1, rates.shape[-1]).T)  # (num_codes, num_rates)
    survival = np.ones((fail.shape[1], MAX_TRIALS + 1))
    step = _SURVIVALS_AT_ONCE // ROBOTS
    for start in range(0, len(survival), step):
        rows = slice(start, start + step)
        failed = np.ones((1, len(survival[rows])))
        for trial, (before, code, share) in enumerate(_choose_while_failing(rates.shape[-1])):
            failed = failed[before] * fail[code, rows]
            survival[rows, trial + 1] = share @ failed
    return survival.reshape(*rates.shape[:-1], -1)


@functools.cache
def _choose_while_failing(num_codes: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]]:
    """What robots choose as long as they fail: for each of `MAX_TRIALS`, groups of robots that have tried each code
    equally often by then, as the group that one of them came from, the code that it chose, and the group's share.

    Until its first success a robot has seen failures alone, so that what it chooses next depends on no success rate:
    the same robots serve every policy, mode and resample, and each counts with the chance that it has failed so far.
    That chance is the same within a group.
    """
    rng = np.random.default_rng(0)
    failures, group = np.zeros((ROBOTS, num_codes)), np.zeros(ROBOTS, np.int64)
    trials = []
    for _ in range(MAX_TRIALS):
        chosen = choose_codes(0.0, failures, rng)
        failures[np.arange(ROBOTS), chosen] += 1
        _, first, now, count = np.unique(failures, axis=0, return_index=True, return_inverse=True, return_counts=True)
        trials.append((group[first], chosen[first], count / ROBOTS))
        group = now
    return trials
