"""Differences between policies: over episodes and seeds for compare.json, over base policies for pool.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from bmd_pipeline.metrics.bootstrap import (
    PairedBootstrap,
    Scores,
    equal_count_entropies,
    make_interval,
    percentile_interval,
)
from bmd_pipeline.metrics.episodes import Episodes, Floats
from bmd_pipeline.metrics.hypotheses import SEED_TEST, compare_episodes, holm, sign_flip_test, smallest_p, two_sided
from bmd_pipeline.metrics.schemas import (
    Difference,
    EpisodeTest,
    Interval,
    PolicyBlock,
    PolicyPair,
    PolicyScores,
    PooledDifference,
    PooledPair,
    PooledScore,
    Score,
    SeedTest,
    Unit,
)
from bmd_pipeline.metrics.scores import COMPARED, SCORES

# ---- From the episodes of several policies to the numbers of compare.json ----


@dataclass(frozen=True)
class Pair:
    """Two policies to compare; fields as in compare.json."""

    one: str
    other: str
    kind: Literal["counterpart", "base"]


def score_policies(sample: PairedBootstrap, confidence: float) -> dict[str, PolicyScores]:
    """Scores of each policy with their intervals."""
    return {
        policy: PolicyScores(metrics=score_seeds(sample.scores[policy], sample.resampled[policy], confidence))
        for policy in sample.episodes
    }


def score_seeds(scores: Scores, resampled: Scores, confidence: float) -> dict[str, Score]:
    """Mean and interquartile mean of scores (num_seeds,), with intervals from resamples (num_resamples, num_seeds)."""
    return {
        name: Score(
            mean=_interval(values.mean(), resampled[name].mean(axis=-1), confidence),
            iqm=_interval(interquartile_mean(values), interquartile_mean(resampled[name]), confidence),
            seeds=values.tolist(),
        )
        for name, values in scores.items()
    }


def compare_pairs(
    sample: PairedBootstrap, pairs: Sequence[Pair], *, confidence: float, min_seeds: int, rng: np.random.Generator
) -> list[PolicyPair]:
    """Compares pairs of policies in every score that means the same for both.

    The tests' level is 1 - confidence; the one over seeds is the one to read from `min_seeds` seeds on, if it can
    decide.
    """
    keys = [(pair, score) for pair in pairs for score in COMPARED]
    contrasts = [sample.contrast(pair.one, pair.other, score) for pair, score in keys]
    by_episode = [
        compare_episodes(sample, pair.one, pair.other, score, threshold=0.0, confidence=confidence)
        for pair, score in keys
    ]
    p_episode = [two_sided(found.p_above, found.p_below) for found in by_episode]
    p_seed = [two_sided(*sign_flip_test(found.differences, 0.0, rng)) for found in contrasts]
    num_seeds = len(sample.seeds)
    least = min(1.0, 2 * smallest_p(num_seeds))
    can_decide = least * len(keys) <= 1 - confidence
    unit: Unit = "seeds" if num_seeds >= min_seeds and can_decide else "episodes"
    metrics: dict[Pair, dict[str, Difference]] = {pair: {} for pair in pairs}
    tests = zip(keys, contrasts, by_episode, p_episode, holm(p_episode), p_seed, holm(p_seed), strict=True)
    for (pair, score), found, episode, p, p_holm, p_of_seeds, p_of_seeds_holm in tests:
        one, other, differences = found.one, found.other, found.differences
        # Runs of the two methods are drawn independently, as in rliable: this number doesn't pair them.
        picks = rng.integers(num_seeds, size=(2, len(found.resampled), num_seeds))
        improvements = probability_of_improvement(one[picks[0]], other[picks[1]])
        by_seed = None
        if num_seeds > 1:
            by_seed = SeedTest(
                test=SEED_TEST,
                differences=differences.tolist(),
                p=p_of_seeds,
                p_holm=p_of_seeds_holm,
                smallest_p=least,
                can_decide=can_decide,
            )
        metrics[pair][score] = Difference(
            difference=_interval(differences.mean(), found.resampled, confidence),
            probability_of_improvement=_interval(probability_of_improvement(one, other), improvements, confidence),
            unit=unit,
            by_seed=by_seed,
            by_episode=EpisodeTest(test=episode.test, low=episode.low, high=episode.high, p=p, p_holm=p_holm),
        )
    return [PolicyPair(one=pair.one, other=pair.other, kind=pair.kind, metrics=metrics[pair]) for pair in pairs]


def _interval(value: float | np.floating | Floats, samples: Floats, confidence: float) -> Interval:
    return make_interval(float(value), percentile_interval(samples, float(value), confidence))


# ---- Scores over base policies: the unit is a whole run, from demonstrations on ----
#
# Fine-tuning seeds of one base policy share its demonstrations, its gaps and its modes, so that intervals over them
# say nothing about the next one. Base policies are independent, few, and each counts once: Student's interval, and
# the exact sign-flip test for differences.


def student_interval(values: Floats, confidence: float, bounds: tuple[float, float]) -> Interval:
    """The mean of values (n,), n >= 2, with Student's interval, cut at the smallest and largest mean there can be."""
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    mean = float(values.mean())
    low, high = max(bounds[0], mean - half), min(bounds[1], mean + half)
    return Interval(value=mean, low=min(low, mean), high=max(high, mean))  # rounding must not disorder them


def pool_scores(blocks: Sequence[PolicyBlock], confidence: float) -> dict[str, PooledScore]:
    """The scores of one policy, from its block on each base policy."""
    bounds = _bounds(len(blocks[0].per_mode))
    values = {name: _values(blocks, name) for name in SCORES}
    return {
        name: PooledScore(mean=student_interval(row, confidence, bounds[name]), bases=row.tolist())
        for name, row in values.items()
    }


def pool_pair(
    blocks: Mapping[str, Sequence[PolicyBlock]],
    episodes: Mapping[str, Sequence[Sequence[Episodes]]],
    one: str,
    other: str,
    confidence: float,
    rng: np.random.Generator,
) -> PooledPair:
    """One policy minus another, by base policy; mode entropies at equal numbers of successes.

    Blocks and episodes are by policy and then by base policy, the latter in one part per seed.
    """
    first = blocks[one][0]
    bounds = _bounds(len(first.per_mode))
    metrics = {}
    for name in COMPARED:
        if name == "mode_entropy":
            pairs = zip(episodes[one], episodes[other], strict=True)
            entropies = [equal_count_entropies(*pair, first.labelling, 1, rng) for pair in pairs]
            values = np.array([(found.one - found.other).mean() for found in entropies])
        else:
            values = _values(blocks[one], name) - _values(blocks[other], name)
        low, high = bounds[name]
        above, below = sign_flip_test(values, 0.0, rng)
        metrics[name] = PooledDifference(
            mean=student_interval(values, confidence, (low - high, high - low)),
            bases=values.tolist(),
            p_above=above,
            p_below=below,
        )
    return PooledPair(one=one, other=other, metrics=metrics)


def _values(blocks: Sequence[PolicyBlock], name: str) -> Floats:
    return np.array([getattr(block, name).mean for block in blocks], dtype=np.float64)


def _bounds(num_modes: int) -> dict[str, tuple[float, float]]:
    """What each score can be."""
    shares = dict.fromkeys(("success_rate", "mode_weighted_success", "obeyed", "obeyed_worst"), (0.0, 1.0))
    counts = dict.fromkeys(("present", "solved"), (0.0, float(num_modes)))
    unbounded = dict.fromkeys(("episode_return", "mutual_information"), (-math.inf, math.inf))
    return shares | counts | unbounded | {"mode_entropy": (0.0, math.log(num_modes))}


# ---- Aggregates over seeds ----
#
# Source: Agarwal et al. 2021 (arXiv 2108.13264) for the interquartile mean and the probability of improvement; the
# definitions are those of their library, rliable, for one task.


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half of the seeds (..., num_seeds); with fewer than four nothing is cut: the plain mean."""
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1), np.float64)


def probability_of_improvement(one: Floats, other: Floats) -> Floats:
    """Chance that a run of one method beats a run of the other: P(X > Y), ties count half.

    It is the Mann-Whitney statistic over the number of pairs, (...) from the runs' scores (..., num_seeds).
    """
    margin = one[..., :, None] - other[..., None, :]
    chance: Floats = ((margin > 0) + 0.5 * (margin == 0)).mean(axis=(-1, -2))
    return chance
