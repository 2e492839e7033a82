"""Are modes real? Tests for more than one behaviour, separability of codes, agreement with others; validation.json."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import isotonic_regression
from scipy.spatial.distance import cdist
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples

from bmd_pipeline.metrics.bootstrap import proportion_interval, wilson_interval
from bmd_pipeline.metrics.schemas import (
    Agreement,
    BaseBehaviour,
    Disturbed,
    Interval,
    PairedRollouts,
    SeedAgreement,
    SeedValidation,
    Separation,
    Truth,
)
from bmd_pipeline.metrics.schemas import CodeCheck as CodeRow
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# ---- Does a policy have more than one mode? A test that needs no labels and assumes no distribution ----
#
# Paired rollouts are two episodes from the same start under independent noise. If along some axis the behaviour from
# every start has a single mode, the difference of a pair is symmetric and single-peaked at 0, and stays so over any
# mixture of starts: the distribution function of its absolute value is concave. (The density of the difference at t
# sums the overlaps of pairs of level sets of the behaviour's density, one of them shifted by t. With a single mode
# level sets are nested intervals, so that every overlap is largest at 0 and shrinks with |t|.) Two modes far apart
# break that, since the episodes of a pair are then either close or as far apart as the modes. What differs from start
# to start cancels out: a policy that always does one thing here and another thing there has one mode.


POWER = 0.9
"""Probability with which the smallest second mode that is named, `detectable_share`, would have been found."""
MIN_SECOND_SHARE = 0.2
"""Share of a second mode that must be detectable before a policy is said to have one mode."""
NULL_DRAWS = 1999
"""Samples of the null distribution: no p is below 1 / (NULL_DRAWS + 1)."""
_COMPONENTS = 3
_PAIRS_AS_AXES = 20
_SHARES = np.arange(1, 101) / 200


def compare_paired_rollouts(one: Floats, other: Floats, *, alpha: float, rng: np.random.Generator) -> PairedRollouts:
    """Tests whether behaviour has a single mode from every start.

    One half of the pairs chooses the axis on which it looks least single-peaked, the other half is tested on it.
    Uniform distances are the hardest case of the null hypothesis. For another concave F the empirical function is that
    of a uniform sample taken at F(x), and so is a concave majorant of it: the dip can't be larger. Uniform samples of
    the same size therefore bound p exactly.

    Args:
        one: (pairs, points, features) what an episode from each start did; at least 4 pairs.
        other: (pairs, points, features) the same of the other episode from that start.
        alpha: level that goes with `detectable_share`.
        rng: splits the pairs and draws the null distribution.
    """
    difference = (one - other)[rng.permutation(len(one))]
    half = len(difference) // 2
    chosen, tested = difference[:half], difference[half:]
    axis = max(_propose_axes(chosen), key=lambda candidate: concavity_dip(_project(chosen, candidate)))
    dip = concavity_dip(_project(tested, axis))
    null = np.array([concavity_dip(draw) for draw in rng.random((NULL_DRAWS, len(tested)))])
    p = (1 + int((null >= dip).sum())) / (1 + NULL_DRAWS)
    share = _find_share(float(np.quantile(null, 1 - alpha)), len(tested))
    return PairedRollouts(pairs=len(tested), dip=dip, p=p, detectable_share=share)


def concavity_dip(distances: Floats) -> float:
    """Largest distance of the empirical distribution function from its least concave majorant.

    The slopes of the majorant are the antitonic regression of the function's own (Grenander 1956).

    Args:
        distances: (n,) at least 0.
    """
    places, counts = np.unique(distances, return_counts=True)
    steps = counts / len(distances)
    if places[0] == 0.0:  # equal episodes sit on the peak itself: both functions begin at their share
        places, steps = places[1:], steps[1:]
    if len(places) == 0:
        return 0.0
    widths = np.diff(places, prepend=0.0)
    slopes = isotonic_regression(steps / widths, weights=widths, increasing=False).x
    below = np.cumsum(steps) - steps  # the function is lowest just before it steps
    return float((np.cumsum(slopes * widths) - below).max())


def _propose_axes(difference: Floats) -> Floats:
    """Axes (num_axes, points, features): principal components and single differences, of whole trajectories and of
    each point alone. Modes that part late, or meet again at the goal, are apart at some points only.
    """
    pairs, points, features = difference.shape
    axes = [_find_directions(difference.reshape(pairs, -1)).reshape(-1, points, features)]
    for point in range(points):
        found = _find_directions(difference[:, point])
        axes.append(np.zeros((len(found), points, features)))
        axes[-1][:, point] = found
    return np.concatenate(axes)


def _find_directions(difference: Floats) -> Floats:
    """Principal components and single differences as vectors (num_axes, dim)."""
    components = np.linalg.svd(difference, full_matrices=False)[2][:_COMPONENTS]
    return np.concatenate([components, difference[:_PAIRS_AS_AXES]])


def _project(difference: Floats, axis: Floats) -> Floats:
    distances: Floats = np.abs(np.tensordot(difference, axis, axes=2))
    return distances


def _find_share(critical: float, pairs: int) -> float | None:
    """Smallest share s whose parted pairs, 2s(1 - s) of all, exceed the critical dip with probability `POWER`."""
    parted = 2 * _SHARES * (1 - _SHARES)
    found = stats.binom.sf(np.ceil(critical * pairs) - 1, pairs, parted) >= POWER
    return float(_SHARES[found.argmax()]) if found.any() else None


# ---- Do codes lead to different behaviour? Distances, silhouettes, and an independent classifier ----


TREES = 200
MIN_EPISODES = 4
"""Successful episodes that a code needs on each side of the split to take part."""


@dataclass(frozen=True)
class Spread:
    """How far apart codes are, in distances between trajectories.

    Attributes:
        silhouette: (num_codes,) mean silhouette of each code's episodes in [-1, 1], NaN for codes that don't take part:
            above 0, they are nearer to their own code than to any other.
        within: mean distance of two episodes of one code, mean over codes.
        between: mean distance of episodes of two codes, mean over pairs of codes.
    """

    silhouette: Floats
    within: float
    between: float


@dataclass(frozen=True)
class Recognition:
    """How often the code is recognised from the trajectory.

    Attributes:
        share: of the episodes whose code was named, with Wilson's interval.
        chance: what naming the commonest code always would reach.
        p: one-sided binomial p for a share above chance.
        table: (num_codes, num_codes) episodes by code and by the code that was named.
    """

    share: Interval
    chance: float
    p: float
    table: Labels


def measure_spread(points: Floats, codes: Labels, num_codes: int) -> Spread | None:
    """Distances and silhouettes of trajectories by code; None if fewer than two codes have enough episodes.

    Args:
        points: (n, dim) trajectories, resampled to equally many points and scaled.
        codes: (n,) the codes that commanded them.
        num_codes: K.

    Source: Rousseeuw 1987, J. Comput. Appl. Math. 20, 53-65 (silhouette).
    """
    kept = select_codes(codes, num_codes, MIN_EPISODES)
    if len(kept) < 2:
        return None
    chosen = np.isin(codes, kept)
    points, codes = points[chosen], codes[chosen]
    distance = cdist(points, points)
    values = silhouette_samples(distance, codes, metric="precomputed")
    silhouette = np.full(num_codes, np.nan)
    within, between = [], []
    for i, code in enumerate(kept):
        own = codes == code
        n = int(own.sum())
        silhouette[code] = values[own].mean()
        within.append(distance[np.ix_(own, own)].sum() / (n * (n - 1)))
        between += [distance[np.ix_(own, codes == other)].mean() for other in kept[i + 1 :]]
    return Spread(silhouette, float(np.mean(within)), float(np.mean(between)))


def _wilson(wins: int, total: int, confidence: float) -> Interval:
    low, high = wilson_interval(wins / total, total, confidence)
    return Interval(value=wins / total, low=low, high=high)


def select_codes(codes: Labels, num_codes: int, least: int) -> Labels:
    """Codes that have at least so many episodes."""
    return np.flatnonzero(np.bincount(codes, minlength=num_codes) >= least)


class CodeReader:
    """A random forest that names the code of a trajectory.

    It shares nothing with the inference model, neither form nor data, and being made of thresholds it doesn't depend
    on the scale of the features.

    Args:
        points: (n, dim) trajectories to learn from, two codes or more among them.
        codes: (n,) their codes.
        seed: fixes the forest.

    Source: Breiman 2001, Mach. Learn. 45, 5-32.
    """

    def __init__(self, points: Floats, codes: Labels, seed: int) -> None:
        self._forest = RandomForestClassifier(TREES, class_weight="balanced", random_state=seed % 2**32)
        self._forest.fit(points, codes)

    def read(self, points: Floats, codes: Labels, num_codes: int, confidence: float) -> Recognition:
        """How often it names the code of other episodes.

        Args:
            points: (n, dim) trajectories, at least one.
            codes: (n,) their codes.
            num_codes: K.
            confidence: level of the interval.
        """
        named = self._forest.predict(points)
        table = np.zeros((num_codes, num_codes), np.int64)
        np.add.at(table, (codes, named), 1)
        total, right = len(codes), int(np.trace(table))
        chance = float(table.sum(axis=1).max()) / total
        p = stats.binomtest(right, total, chance, alternative="greater").pvalue
        return Recognition(_wilson(right, total, confidence), chance, float(p), table)


# ---- How well two sortings of the same episodes agree: codes against true modes, one seed's codes against another's
# ----


def measure_agreement(sorts: Labels, classes: Labels) -> Agreement:
    """Compares two sortings (n,) of the same episodes, at least one, whatever their names for the sorts.

    Source: Strehl and Ghosh 2002 (NMI, arithmetic mean of the entropies); Hubert and Arabie 1985 (ARI).
    """
    return Agreement(
        nmi=float(normalized_mutual_info_score(classes, sorts)), ari=float(adjusted_rand_score(classes, sorts))
    )


def measure_purity(table: Labels) -> float:
    """Share of the episodes in the majority class of their sort; says nothing where sorts are tiny.

    Args:
        table: (num_sorts, num_classes) episodes, at least one.
    """
    return float(table.max(axis=1).sum() / table.sum())


def count_pairs(sorts: Labels, classes: Labels, num_sorts: int | None = None, num_classes: int | None = None) -> Labels:
    """Episodes by sort and class, (num_sorts, num_classes); as many of each as occur if no number is given."""
    shape = (num_sorts or int(sorts.max()) + 1, num_classes or int(classes.max()) + 1)
    table = np.zeros(shape, np.int64)
    np.add.at(table, (sorts, classes), 1)
    return table


def find_redundant(table: Labels) -> list[list[int]]:
    """Groups of two or more sorts whose majority is in the same class; sorts without episodes belong to none."""
    majority = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), -1)
    groups = [np.flatnonzero(majority == kind).tolist() for kind in range(table.shape[1])]
    return [group for group in groups if len(group) > 1]


def find_missing(table: Labels, wanted: NDArray[np.bool_]) -> list[int]:
    """Wanted classes, (num_classes,) bool, in which no sort has its majority."""
    reached = set(table[table.sum(axis=1) > 0].argmax(axis=1).tolist())
    return [kind for kind in np.flatnonzero(wanted).tolist() if kind not in reached]


# ---- From the trajectories of commanded and uncommanded episodes to the numbers of modes/validation.json ----


MIN_SUCCESSES = 20
"""Successes, or pairs of them, without which nothing is tested or compared with the truth."""


@dataclass(frozen=True)
class Trajectories:
    """Episodes as they are compared.

    Attributes:
        points: (n, points, features) resampled to equally many points, scaled.
        code: (n,) the code that commanded each; zeros for the base policy.
        success: (n,) bool.
        mode: (n,) index of the true mode; meaningful for successes alone.
    """

    points: Floats
    code: Labels
    success: NDArray[np.bool_]
    mode: Labels

    @property
    def flat(self) -> Floats:
        """(n, points * features)."""
        return self.points.reshape(len(self.points), -1)

    def count_modes(self, modes: Sequence[str]) -> Labels:
        """Successes by true mode, (num_modes,)."""
        return np.bincount(self.mode[self.success], minlength=len(modes))


class Validator:
    """Computes what validation.json holds about the base policy and the codes.

    Args:
        modes: names of the task's true modes.
        confidence: level of intervals.
        alpha: level of the test of one mode against several.
        rng: draws.
    """

    def __init__(self, modes: Sequence[str], confidence: float, alpha: float, rng: np.random.Generator) -> None:
        self.modes = modes
        self.confidence = confidence
        self.alpha = alpha
        self.rng = rng

    def describe_base(self, one: Trajectories, other: Trajectories) -> BaseBehaviour:
        """What the base policy does, from two episodes per start under independent noise."""
        both = one.success & other.success
        tested = None
        if both.sum() >= MIN_SUCCESSES:
            tested = compare_paired_rollouts(one.points[both], other.points[both], alpha=self.alpha, rng=self.rng)
        modes: Literal["several", "one", "unknown"] = "unknown"
        if tested is not None and tested.p <= self.alpha:
            modes = "several"
        elif tested is not None and (tested.detectable_share or 1.0) <= MIN_SECOND_SHARE:
            modes = "one"
        return BaseBehaviour(
            episodes=2 * len(both),
            success_rate=self._rate_pairs(one.success, other.success),
            modes=modes,
            paired=tested,
            mode_shares=self._shares(one.count_modes(self.modes) + other.count_modes(self.modes)),
        )

    def describe_seed(
        self,
        seed: int,
        num_codes: int,
        played: Trajectories,
        disturbed: Mapping[str, Trajectories],
        base: BaseBehaviour,
    ) -> SeedValidation:
        """What one seed's codes lead to.

        Args:
            seed: the discovery seed.
            num_codes: K that it found.
            played: commanded episodes, codes round-robin.
            disturbed: the same starts and codes under each disturbance.
            base: what the base policy does without commands.
        """
        won, codes = played.success, played.code
        # Codes go round-robin: this halves the starts of every one.
        heldout = np.arange(len(codes)) // num_codes % 2 == 1
        learners = select_codes(codes[won & ~heldout], num_codes, MIN_EPISODES)
        spread = measure_spread(played.flat[won], codes[won], num_codes)
        reader, separation, silhouette = None, None, np.full(num_codes, np.nan)
        recognised: dict[int, float] = {}
        readable = heldout & np.isin(codes, learners)
        if spread is not None and len(learners) > 1 and (won & readable).any():
            learned = won & ~heldout & np.isin(codes, learners)
            reader = CodeReader(played.flat[learned], codes[learned], int(self.rng.integers(2**31)))
            read = reader.read(played.flat[won & readable], codes[won & readable], num_codes, self.confidence)
            seen = read.table.sum(axis=1)
            recognised = {k: float(read.table[k, k] / seen[k]) for k in np.flatnonzero(seen).tolist()}
            silhouette = spread.silhouette
            separation = Separation(
                silhouette=float(np.nanmean(silhouette)),
                within=spread.within,
                between=spread.between,
                recognised=read.share,
                chance=read.chance,
                p=read.p,
                learned_from=int(learned.sum()),
                confusion=read.table.tolist(),
            )
        table = count_pairs(codes[won], played.mode[won], num_codes, len(self.modes))
        return SeedValidation(
            seed=seed,
            episodes=len(codes),
            success_rate=_wilson(int(won.sum()), len(won), self.confidence),
            present=self._count(played),
            separation=separation,
            truth=self._compare_with_truth(played, table, base) if won.sum() >= MIN_SUCCESSES else None,
            codes=[
                CodeRow(
                    code=k,
                    episodes=int((codes == k).sum()),
                    success_rate=float(won[codes == k].mean()),
                    silhouette=None if np.isnan(silhouette[k]) else float(silhouette[k]),
                    recognised=recognised.get(k),
                    mode=self.modes[int(row.argmax())] if row.any() else None,
                    mode_shares=self._shares(row),
                )
                for k, row in enumerate(table)
            ],
            disturbed=[
                self._describe_disturbed(name, there, reader, readable & there.success, num_codes)
                for name, there in disturbed.items()
            ],
        )

    def _compare_with_truth(self, played: Trajectories, table: Labels, base: BaseBehaviour) -> Truth:
        found = measure_agreement(played.code[played.success], played.mode[played.success])
        wanted = np.array([base.mode_shares[mode] >= MIN_MODE_SHARE for mode in self.modes])
        return Truth(
            **dict(found),
            purity=measure_purity(table),
            redundant=find_redundant(table),
            missing=[self.modes[m] for m in find_missing(table, wanted)],
        )

    def _describe_disturbed(
        self, name: str, there: Trajectories, reader: CodeReader | None, readable: NDArray[np.bool_], num_codes: int
    ) -> Disturbed:
        recognised = None
        if reader is not None and readable.any():
            recognised = reader.read(there.flat[readable], there.code[readable], num_codes, self.confidence).share
        return Disturbed(
            disturbance=name,
            success_rate=_wilson(int(there.success.sum()), len(there.success), self.confidence),
            recognised=recognised,
            present=self._count(there),
        )

    def _rate_pairs(self, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Interval:
        """A pair shares its start, which may be easy or hard for both episodes: starts are the clusters."""
        rates = (one.astype(np.float64) + other) / 2
        low, high = proportion_interval(rates, np.full(len(rates), 2.0), self.confidence)
        return Interval(value=float(rates.mean()), low=low, high=high)

    def _shares(self, counts: Labels) -> dict[str, float]:
        shares = counts / max(1, counts.sum())
        return dict(zip(self.modes, shares.tolist(), strict=True))

    def _count(self, played: Trajectories) -> int:
        """True modes that hold at least 1 % of the successes."""
        shares = self._shares(played.count_modes(self.modes)).values()
        return sum(share >= MIN_MODE_SHARE for share in shares)


def describe_agreement(sortings: Mapping[int, Labels]) -> list[SeedAgreement]:
    """Every pair of seeds, by how they sort the same episodes (n,); none with fewer than twenty of them."""
    pairs = []
    for (one, first), (other, second) in itertools.combinations(sortings.items(), 2):
        if len(first) >= MIN_SUCCESSES:
            found = measure_agreement(first, second)
            pairs.append(SeedAgreement(one=one, other=other, episodes=len(first), **dict(found)))
    return pairs
