"""Confidence intervals: Wilson's, bootstraps of episodes and seeds, pairs of policies at equal numbers of successes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bmd_pipeline.metrics.episodes import Episodes, Floats
from bmd_pipeline.metrics.schemas import Interval
from bmd_pipeline.metrics.scores import compute_scores, corrected_entropy, episode_features

# ---- Confidence intervals: Wilson's for proportions, a two-level bootstrap for everything else ----
#
# Episodes of one seed share a policy, so they are not independent: both intervals see seeds as clusters.
# A few seeds say little about the spread between seeds, and no interval changes that; read them with `seeds[]`.

MAX_RATIO = 1e6
"""Variance to variance between seeds beyond which Student's quantile is the normal one."""
NUM_RESAMPLES = 2000
"""Resamples for the intervals of eval.json."""
PAIRED_RESAMPLES = 5000
"""Resamples for comparisons: no p of a bootstrap test falls below 1 / 5001."""
_DRAWS_AT_ONCE = 1 << 22
_KIND_COST = 16  # drawing how many episodes of a kind there are takes as long as drawing so many episodes


def wilson_interval(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion observed in n trials; it stays informative at 0 and 1.

    Trials may be fractional (weighted counts); without any the interval is [0, 1].

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (n * rate + z**2 / 2) / (n + z**2)
    half = z * (n * rate * (1 - rate) + z**2 / 4) ** 0.5 / (n + z**2)
    # The ends are exactly 0 and 1 for rates 0 and 1; rounding must not push them past the rate.
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def make_interval(value: float, ends: tuple[float, float]) -> Interval:
    """A number and its interval as documents hold them."""
    return Interval(value=value, low=ends[0], high=ends[1])


def proportion_interval(rates: Floats, totals: Floats, confidence: float) -> tuple[float, float]:
    """Wilson's interval of rates.mean(), the mean proportion over seeds, wider where seeds differ more than by chance.

    A seed may be any group of trials that resemble each other.

    Seeds count equally however many trials they have, so that one with few of them leaves the mean uncertain: k seeds
    are worth k² / Σ(1 / n_i) trials, which are all of them if each has as many. This number is divided by the design
    effect, the ratio of the variance seen between seeds to the binomial one, never below 1. A few seeds give a
    rough variance, so that Student's quantile replaces the normal one. Its degrees of freedom are those of the seeds,
    and more where the binomial variance, which is known, is the larger part (Satterthwaite). One seed: plain Wilson.

    Args:
        rates: (num_seeds,) proportion of each seed; that of a seed without trials counts in the mean and in the
            variance between seeds.
        totals: (num_seeds,) trials of each seed, may be fractional; seeds without any add no trials.
        confidence: level.

    Source: Korn and Graubard 1998, Survey Methodology 24, 193-201 (effective sample size and its degrees of freedom);
    Franco et al. 2019, J. Survey Stat. Methodol. 7, 334-364 (Wilson with it).
    """
    rate, n = float(rates.mean()), _count_effective_trials(totals)
    binomial = rate * (1 - rate) / n if n > 0 else 0.0
    between = float(rates.var(ddof=1)) / len(rates) if len(rates) > 1 else 0.0
    if binomial > 0 and between > 0:
        variance = max(between, binomial)
        ratio = min(variance / between, MAX_RATIO)  # the same rates, rounded, are hardly apart
        freedom = (len(rates) - 1) * ratio**2
        level = 0.5 + confidence / 2
        n *= binomial / variance * (NormalDist().inv_cdf(level) / float(special.stdtrit(freedom, level))) ** 2
    return wilson_interval(rate, n, confidence)


def _count_effective_trials(totals: Floats) -> float:
    """Binomial trials that an unweighted mean over seeds is worth."""
    tried = totals[totals > 0]
    if len(tried) == 0:
        return 0.0
    # No proportion of mean p varies more than p(1 - p), which is the variance of one trial: fractions count as one.
    worth = len(tried) ** 2 / float((1.0 / np.maximum(tried, 1.0)).sum())
    return min(worth, float(tried.sum()))


def bootstrap_sums(
    features: Sequence[Floats], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES, *, draw_seeds: bool = True
) -> Floats:
    """Resamples seeds, then episodes within each drawn seed, and sums their features (num_episodes, num_features).

    Metrics are functions of such sums (counts, totals), so this is all that a bootstrap needs. With one
    seed it is the ordinary bootstrap over episodes. With `draw_seeds=False` every seed keeps its own slot: seeds are
    strata, and episodes alone vary, as befits a statement about the very policies that were evaluated. Where the
    episodes of a seed are of few kinds, how many of each kind are drawn is drawn at once, from the same distribution.

    Returns:
        (num_resamples, num_seeds, num_features); the second axis is the slot that a drawn seed fills.

    Source: Davison & Hinkley 1997, Bootstrap Methods, section 3.8 (hierarchical data).
    """
    num_seeds = len(features)
    slots = np.tile(np.arange(num_seeds), num_resamples)
    picks = rng.integers(num_seeds, size=len(slots)) if draw_seeds else slots
    sums = np.empty((len(picks), features[0].shape[1]))
    for k, episodes in enumerate(features):
        rows, n = np.flatnonzero(picks == k), len(episodes)
        kinds, counts = _count_kinds(episodes)
        if _KIND_COST * len(kinds) <= n:
            sums[rows] = rng.multinomial(n, counts / n, size=len(rows)) @ kinds
            continue
        step = max(1, _DRAWS_AT_ONCE // n)
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            sums[block] = _count_draws(rng.integers(n, size=(len(block), n))) @ episodes
    return sums.reshape(num_resamples, num_seeds, -1)


def _count_kinds(episodes: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The different rows of features (num_episodes, num_features), and how many episodes have each."""
    rows = np.ascontiguousarray(episodes)
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]  # far faster than unique(axis=0)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return rows[first], counts


def _count_draws(draws: NDArray[np.int64], kept: NDArray[np.bool_] | None = None) -> Floats:
    """How often each of n episodes was drawn in each row of draws (rows, n), among those that are kept."""
    rows, n = draws.shape
    cells = (draws + n * np.arange(rows)[:, None]).ravel()
    counts = np.bincount(cells, None if kept is None else kept.ravel(), minlength=rows * n)
    return counts.reshape(rows, n).astype(np.float64, copy=False)


def percentile_interval(samples: Floats, estimate: float, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples (num_resamples,), stretched to contain the estimate.

    The stretch matters for biased metrics at the edge of their range: resampling can only lower the
    entropy of a perfectly even policy.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, (tail, 1 - tail))
    return min(float(low), estimate), max(float(high), estimate)


# ---- The mode entropy of two policies at equal numbers of successes ----
#
# Few successes look less even than many, even if both come from the same modes, so that entropies of policies that
# succeed at different rates can't be subtracted, and a bootstrap repeats the bias instead of showing it. Here the
# policy with more successes is thinned to as many as the other one has, in the sample and in every resample: what is
# left of the bias is then the same for both if their modes are, however few successes there are. Where modes differ
# the remainder is corrected (`corrected_entropy`).
#
# Source: Hurlbert 1971, Ecology 52, 577-586 (rarefaction).

THINNINGS = 1000
"""Random thinnings that an entropy is the mean over; the error that is left is 3 % of one thinning's."""
_THINNED_AT_ONCE = 1 << 20


class EqualCountEntropies(NamedTuple):
    """Entropies of two policies at equal numbers of successes within each seed, in nats."""

    one: Floats  # (num_seeds,)
    other: Floats  # (num_seeds,)
    resampled: Floats  # (num_resamples, num_seeds) first minus second when the seed's episodes are drawn again


def equal_count_entropies(
    one: Sequence[Episodes], other: Sequence[Episodes], labelling: str, num_resamples: int, rng: np.random.Generator
) -> EqualCountEntropies:
    """Entropies of two policies that met the same starts, each seed for itself.

    Both have one part per seed and equally many episodes in it; a resample draws the same episodes for both.
    """
    seen, resampled = [], []
    for pair in zip(one, other, strict=True):
        n = len(pair[0])
        orders = rng.permuted(np.tile(np.arange(n), (THINNINGS, 1)), axis=1)
        seen.append([entropy.mean() for entropy in _compute_thinned_entropies(pair, labelling, orders)])
        step = max(1, _THINNED_AT_ONCE // n)
        blocks = [
            np.subtract(
                *_compute_thinned_entropies(
                    pair, labelling, rng.integers(n, size=(min(step, num_resamples - start), n))
                )
            )
            for start in range(0, num_resamples, step)
        ]
        resampled.append(np.concatenate(blocks))
    first, second = np.array(seen, dtype=np.float64).T
    return EqualCountEntropies(first, second, np.stack(resampled, axis=1))


def _compute_thinned_entropies(
    pair: tuple[Episodes, Episodes], labelling: str, draws: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Entropy of each policy from the first successes in each row of drawn episodes (rows, num_episodes), as many as
    both policies have there. Rows are in random order, so that the first ones are a random choice."""
    ranks = [np.cumsum(part.success[draws], axis=1, dtype=np.int32) for part in pair]
    size = np.minimum(ranks[0][:, -1], ranks[1][:, -1])[:, None]
    entropies = []
    for part, rank in zip(pair, ranks, strict=True):
        kept = part.success[draws] & (rank <= size)
        counts = _count_draws(draws, kept)
        weights = part.labellings[labelling].weights
        entropies.append(corrected_entropy(counts @ weights, counts @ weights**2))
    return entropies[0], entropies[1]


# ---- Several policies on the same seeds and the same initial states, and resamples that keep them together ----
#
# Evaluation starts episode i of seed k from the same state whatever the policy, so a resample draws the same episodes
# of the same seeds for all of them. Differences between policies are then not blurred by the luck of the draw.

Scores = dict[str, Floats]


@dataclass(frozen=True)
class Contrast:
    """One score of two policies, as far as they can be compared in it."""

    one: Floats  # (num_seeds,) the first policy's
    other: Floats  # (num_seeds,) the second policy's
    resampled: Floats  # (num_resamples,) difference, mean over seeds: seeds drawn, then episodes within each
    within: Floats  # (num_resamples,) the same, all seeds kept

    @property
    def differences(self) -> Floats:
        """First minus second, by seed."""
        return self.one - self.other


@dataclass(frozen=True)
class ModeCounts:
    """One policy's episodes by mode."""

    successes: Floats  # (..., num_seeds, num_modes)
    visits: Floats  # (..., num_seeds, num_modes), fractional where failures were spread


@dataclass(frozen=True)
class PairedBootstrap:
    """Evaluations of several policies, and what resampling makes of their scores."""

    episodes: Mapping[str, Sequence[Episodes]]  # by policy, one part per seed
    labelling: str  # name of the mode labelling
    modes: tuple[str, ...]  # names of its modes
    tau: float  # success rate from which a present mode is solved
    scores: dict[str, Scores]  # policy → score → (num_seeds,)
    resampled: dict[str, Scores]  # policy → score → (num_resamples, num_seeds): seeds drawn, then episodes within each
    within: dict[str, Scores]  # policy → score → (num_resamples,): mean over seeds, all kept, of resampled episodes
    entropy_seed: int  # of the draws of entropies at equal numbers of successes, the same for every pair
    _contrasts: dict[tuple[str, str, str], Contrast] = field(default_factory=dict, repr=False, compare=False)

    @property
    def seeds(self) -> list[int]:
        """Training seeds, the same for every policy."""
        return [part.seed for part in next(iter(self.episodes.values()))]

    @property
    def num_episodes(self) -> int:
        """Episodes of each policy and seed."""
        return len(next(iter(self.episodes.values()))[0])

    def counts(self, policy: str) -> ModeCounts:
        """Successes and visits by seed and mode."""
        sums = np.stack([episode_features(part, self.labelling).sum(axis=0) for part in self.episodes[policy]])
        num_modes = len(self.modes)
        return ModeCounts(sums[:, :num_modes], sums[:, num_modes : 2 * num_modes])

    def contrast(self, one: str, other: str, score: str) -> Contrast:
        """Compares two policies in a score: by subtraction, but entropies at equal numbers of successes."""
        key = (one, other, score)
        if key not in self._contrasts:
            self._contrasts[key] = self._contrast(*key)
        return self._contrasts[key]

    def _contrast(self, one: str, other: str, score: str) -> Contrast:
        if score != "mode_entropy":
            return Contrast(
                self.scores[one][score],
                self.scores[other][score],
                (self.resampled[one][score] - self.resampled[other][score]).mean(axis=-1),
                self.within[one][score] - self.within[other][score],
            )
        rng = np.random.default_rng(self.entropy_seed)
        num_resamples, num_seeds = self.resampled[one]["mode_entropy"].shape
        found = equal_count_entropies(self.episodes[one], self.episodes[other], self.labelling, num_resamples, rng)
        observed = float((found.one - found.other).mean())
        # A drawn seed gets any of its resamples: the same seed drawn twice is resampled twice.
        picks = rng.integers(num_seeds, size=(num_resamples, num_seeds))
        drawn = found.resampled[rng.integers(num_resamples, size=picks.shape), picks]
        return Contrast(
            found.one,
            found.other,
            _mirror_resamples(drawn.mean(axis=-1), observed),
            _mirror_resamples(found.resampled.mean(axis=-1), observed),
        )


def make_paired_bootstrap(
    episodes: Mapping[str, Sequence[Episodes]],
    *,
    tau: float,
    rng: np.random.Generator,
    num_resamples: int = PAIRED_RESAMPLES,
) -> PairedBootstrap:
    """Scores policies and resamples them together, from one part per seed.

    All have the same seeds and equally many episodes; τ is the success rate from which a present mode is solved.
    """
    parts = list(episodes.values())
    labelling = next(iter(parts[0][0].labellings))
    num_episodes = len(parts[0][0])
    # One row per episode with the features of all policies side by side: what is drawn together stays together.
    features = [
        np.hstack([episode_features(part, labelling) for part in seed_parts]) for seed_parts in zip(*parts, strict=True)
    ]

    def score(sums: Floats) -> dict[str, Scores]:
        blocks = np.split(sums, len(parts), axis=-1)
        scored = (compute_scores(block, num_episodes, tau) for block in blocks)
        return dict(zip(episodes, scored, strict=True))

    within = score(bootstrap_sums(features, rng, num_resamples, draw_seeds=False))
    return PairedBootstrap(
        episodes=episodes,
        labelling=labelling,
        modes=parts[0][0].labellings[labelling].modes,
        tau=tau,
        scores=score(np.stack([rows.sum(axis=0) for rows in features])),
        resampled=score(bootstrap_sums(features, rng, num_resamples)),
        within={name: {key: value.mean(axis=-1) for key, value in scores.items()} for name, scores in within.items()},
        entropy_seed=int(rng.integers(2**31)),
    )


def _mirror_resamples(drawn: Floats, observed: float) -> Floats:
    """Resamples whose quantiles are the ends of the basic bootstrap interval, and whose tails its p.

    Resampling moves entropies down, so that its mean is no place to read an interval at; what it shows is how far
    a sample strays from its own mean, and to which side. Equal episodes must tie in spite of rounding.

    Source: Davison & Hinkley 1997, Bootstrap Methods, section 5.2.
    """
    reflected: Floats = np.round(observed + drawn.mean() - drawn, 12)
    return reflected
