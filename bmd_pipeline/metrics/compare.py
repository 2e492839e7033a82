"""From the episodes of several policies to the numbers of compare.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bmd_pipeline.metrics import seed_tests
from bmd_pipeline.metrics.aggregates import cohens_h, hedges_g, interquartile_mean, probability_of_improvement
from bmd_pipeline.metrics.comparison import (
    Difference,
    EpisodeTest,
    Interval,
    PolicyPair,
    PolicyScores,
    Score,
    SeedTest,
    Unit,
)
from bmd_pipeline.metrics.correction import holm
from bmd_pipeline.metrics.intervals import percentile_interval, wilson_interval
from bmd_pipeline.metrics.joint import JointSample, Scores
from bmd_pipeline.metrics.paired import compare_episodes, two_sided
from bmd_pipeline.metrics.scores import COMPARED
from bmd_pipeline.metrics.summary import tabulate_modes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two policies to compare; fields as in compare.json."""

    one: str
    other: str
    kind: Literal["counterpart", "base"]


def score_policies(sample: JointSample, confidence: float) -> dict[str, PolicyScores]:
    """Scores of each policy with their intervals, and its modes."""
    policies = {}
    for policy in sample.episodes:
        counts = sample.counts(policy)
        episodes = len(sample.seeds) * sample.num_episodes
        rate = float(sample.scores[policy]["success_rate"].mean())
        low, high = wilson_interval(rate, episodes, confidence)
        policies[policy] = PolicyScores(
            metrics=score_seeds(sample.scores[policy], sample.resampled[policy], confidence),
            wilson=Interval(value=rate, low=low, high=high),
            per_mode=tabulate_modes(sample.modes, counts.successes, counts.visits, confidence),
        )
    return policies


def score_seeds(scores: Scores, resampled: Scores, confidence: float) -> dict[str, Score]:
    """Mean and interquartile mean of each score.

    Args:
        scores: (num_seeds,) by name.
        resampled: (num_resamples, num_seeds) by name.
        confidence: level of the intervals.
    """
    found = {}
    for name, values in scores.items():
        drawn = resampled[name]
        found[name] = Score(
            mean=_interval(float(values.mean()), drawn.mean(axis=-1), confidence),
            iqm=_interval(float(interquartile_mean(values)), interquartile_mean(drawn), confidence),
            seeds=values.tolist(),
        )
    return found


def compare_pairs(
    sample: JointSample, pairs: Sequence[Pair], *, confidence: float, min_seeds: int, rng: np.random.Generator
) -> list[PolicyPair]:
    """Compares pairs of policies in every score that means the same for both.

    Args:
        sample: the evaluations.
        pairs: which policies.
        confidence: level of the intervals; the tests' level is the rest.
        min_seeds: seeds from which the test over seeds is the one to read.
        rng: draws.
    """
    keys = [(pair, score) for pair in pairs for score in COMPARED]
    by_episode = [
        compare_episodes(sample, pair.one, pair.other, score, threshold=0.0, confidence=confidence)
        for pair, score in keys
    ]
    p_episode = [two_sided(found.p_above, found.p_below) for found in by_episode]
    p_seed = [two_sided(*seed_tests.sign_flip_test(_by_seed(sample, pair, score), 0.0, rng)) for pair, score in keys]
    num_seeds = len(sample.seeds)
    least = min(1.0, 2 * seed_tests.smallest_p(num_seeds))
    can_decide = least * len(keys) <= 1 - confidence
    unit: Unit = "seeds" if num_seeds >= min_seeds and can_decide else "episodes"
    rows = zip(keys, by_episode, p_episode, holm(p_episode), p_seed, holm(p_seed), strict=True)
    metrics: dict[Pair, dict[str, Difference]] = {pair: {} for pair in pairs}
    for (pair, score), episode, p, p_holm, p_of_seeds, p_of_seeds_holm in rows:
        over_seeds = (
            SeedTest(
                test=seed_tests.NAME,
                differences=_by_seed(sample, pair, score).tolist(),
                p=p_of_seeds,
                p_holm=p_of_seeds_holm,
                smallest_p=least,
                can_decide=can_decide,
            )
            if num_seeds > 1
            else None
        )
        metrics[pair][score] = _measure(
            sample,
            pair,
            score,
            confidence,
            rng,
            unit=unit,
            by_seed=over_seeds,
            by_episode=EpisodeTest(test=episode.test, low=episode.low, high=episode.high, p=p, p_holm=p_holm),
        )
    return [PolicyPair(one=pair.one, other=pair.other, kind=pair.kind, metrics=metrics[pair]) for pair in pairs]


def _measure(
    sample: JointSample,
    pair: Pair,
    score: str,
    confidence: float,
    rng: np.random.Generator,
    *,
    unit: Unit,
    by_seed: SeedTest | None,
    by_episode: EpisodeTest,
) -> Difference:
    found = sample.contrast(pair.one, pair.other, score)
    one, other, drawn = found.one, found.other, found.resampled
    improvement = float(probability_of_improvement(one, other))
    # Runs of the two methods are drawn independently, as in rliable: this number doesn't pair them.
    picks = rng.integers(len(one), size=(2, len(drawn), len(one)))
    improvements = probability_of_improvement(one[picks[0]], other[picks[1]])
    return Difference(
        difference=_interval(float((one - other).mean()), drawn, confidence),
        probability_of_improvement=_interval(improvement, improvements, confidence),
        hedges_g=hedges_g(one, other),
        cohens_h=cohens_h(float(one.mean()), float(other.mean())) if score == "success_rate" else None,
        unit=unit,
        by_seed=by_seed,
        by_episode=by_episode,
    )


def _by_seed(sample: JointSample, pair: Pair, score: str) -> Floats:
    return sample.contrast(pair.one, pair.other, score).differences


def _interval(value: float, samples: Floats, confidence: float) -> Interval:
    low, high = percentile_interval(samples, value, confidence)
    return Interval(value=value, low=low, high=high)
