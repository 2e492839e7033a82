"""Are modes real? Tests for more than one behaviour, separability of codes, agreement with truth; validation.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import isotonic_regression
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score

from bmd_pipeline.metrics.bootstrap import make_interval, proportion_interval, wilson_interval
from bmd_pipeline.metrics.episodes import Floats
from bmd_pipeline.metrics.schemas import (
    Agreement,
    BaseBehaviour,
    CodeCheck,
    Interval,
    PairedRollouts,
    SeedValidation,
    Separation,
    Truth,
)
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE, is_present, mode_shares

Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]

# ---- Does a policy have more than one mode? A test that needs no labels and assumes no distribution ----
#
# Paired rollouts are two episodes from the same start under independent noise. If along some axis the behaviour from
# every start has a single mode, the difference of a pair is symmetric and single-peaked at 0, and stays so over any
# mixture of starts: the distribution function of its absolute value is concave. (The density of the difference at t
# sums the overlaps of pairs of level sets of the behaviour's density, one of them shifted by t. With a single mode
# level sets are nested intervals, so that every overlap is largest at 0 and shrinks with |t|.) Two modes far apart
# break that, since the episodes of a pair are then either close or as far apart as the modes. What differs from start
# to start cancels out: a policy that always does one thing here and another thing there has one mode.

NULL_DRAWS = 1999
"""Samples of the null distribution: no p is below 1 / (NULL_DRAWS + 1)."""
_COMPONENTS = 3
_PAIRS_AS_AXES = 20


def compare_paired_rollouts(one: Floats, other: Floats, *, rng: np.random.Generator) -> PairedRollouts:
    """Tests whether behaviour has a single mode from every start.

    One half of the pairs chooses the axis on which it looks least single-peaked, the other half is tested on it.
    Uniform distances are the hardest case of the null hypothesis. For another concave F the empirical function is that
    of a uniform sample taken at F(x), and so is a concave majorant of it: the dip can't be larger. Uniform samples of
    the same size therefore bound p exactly.

    `one` and `other`, (pairs, points, features), are what the two episodes from each start did, at least 4 pairs of
    them.
    """
    difference = (one - other)[rng.permutation(len(one))]
    half = len(difference) // 2
    chosen, tested = difference[:half], difference[half:]
    axis = max(_propose_axes(chosen), key=lambda candidate: concavity_dip(_project(chosen, candidate)))
    dip = concavity_dip(_project(tested, axis))
    null = np.array([concavity_dip(draw) for draw in rng.random((NULL_DRAWS, len(tested)))])
    p = (1 + int((null >= dip).sum())) / (1 + NULL_DRAWS)
    return PairedRollouts(pairs=len(tested), dip=dip, p=p)


def concavity_dip(distances: Floats) -> float:
    """Largest distance of the empirical distribution function of distances (n,) from its least concave majorant.

    The slopes of the majorant are the antitonic regression of the function's own (Grenander 1956).
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


# ---- Do codes lead to different behaviour? An independent classifier ----
#
# The classifier is a random forest (Breiman 2001, Mach. Learn. 45, 5-32). It shares nothing with the inference model,
# neither form nor data, and being made of thresholds it doesn't depend on the scale of the features.

TREES = 200
MIN_EPISODES = 4
"""Successful episodes that a code needs on each side of the split to take part."""


# ---- How well two sortings of the same episodes agree: codes and true modes ----


def measure_agreement(sorts: Labels, classes: Labels) -> Agreement:
    """Compares two sortings (n,) of the same episodes, at least one, whatever their names for the sorts.

    Source: Strehl and Ghosh 2002 (NMI, arithmetic mean of the entropies); Hubert and Arabie 1985 (ARI).
    """
    return Agreement(
        nmi=float(normalized_mutual_info_score(classes, sorts)), ari=float(adjusted_rand_score(classes, sorts))
    )


# ---- From the trajectories of commanded and uncommanded episodes to the numbers of modes/validation.json ----

MIN_SUCCESSES = 20
"""Successes, or pairs of them, without which nothing is tested or compared with the truth."""


@dataclass(frozen=True)
class Trajectories:
    """Episodes as they are compared."""

    points: Floats  # (n, points, features) resampled to equally many points, scaled
    code: Labels  # (n,) the code that commanded each; zeros for the base policy
    success: Mask  # (n,)
    mode: Labels  # (n,) index of the true mode; meaningful for successes alone

    @property
    def flat(self) -> Floats:
        """(n, points * features)."""
        return self.points.reshape(len(self.points), -1)


@dataclass(frozen=True)
class Validator:
    """Computes what validation.json holds about the base policy and the codes."""

    modes: Sequence[str]  # names of the task's true modes
    confidence: float  # level of intervals
    alpha: float  # level of the test of one mode against several
    rng: np.random.Generator  # draws

    def describe_base(self, one: Trajectories, other: Trajectories) -> BaseBehaviour:
        """What the base policy does, from two episodes per start under independent noise."""
        both = one.success & other.success
        tested = None
        modes: Literal["several", "unknown"] = "unknown"
        if both.sum() >= MIN_SUCCESSES:
            tested = compare_paired_rollouts(one.points[both], other.points[both], rng=self.rng)
            if tested.p <= self.alpha:
                modes = "several"
        # A pair shares its start, which may be easy or hard for both episodes: starts are the clusters.
        rates = (one.success.astype(np.float64) + other.success) / 2
        ends = proportion_interval(rates, np.full(len(rates), 2.0), self.confidence)
        return BaseBehaviour(
            episodes=2 * len(both),
            success_rate=make_interval(float(rates.mean()), ends),
            modes=modes,
            paired=tested,
            mode_shares=self._shares(self._count_modes(one) + self._count_modes(other)),
        )

    def describe_seed(self, seed: int, num_codes: int, played: Trajectories, base: BaseBehaviour) -> SeedValidation:
        """What the codes of one discovery seed, played round-robin, lead to, compared with what the base policy does
        without commands."""
        won, codes = played.success, played.code
        # Codes go round-robin: this halves the starts of every one.
        heldout = np.arange(len(codes)) // num_codes % 2 == 1
        learners = np.flatnonzero(np.bincount(codes[won & ~heldout], minlength=num_codes) >= MIN_EPISODES)
        known = np.isin(codes, learners)
        learned, readable = won & ~heldout & known, heldout & known
        separation = None
        recognised = np.full(num_codes, np.nan)
        if len(learners) > 1 and (won & readable).any():
            forest = RandomForestClassifier(
                TREES, class_weight="balanced", random_state=int(self.rng.integers(2**31))
            ).fit(played.flat[learned], codes[learned])
            asked, named = codes[won & readable], forest.predict(played.flat[won & readable])
            table = confusion_matrix(asked, named, labels=range(num_codes))
            seen, right = table.sum(axis=1), np.diag(table)
            recognised = np.divide(right, seen, out=np.full(num_codes, np.nan), where=seen > 0)
            chance = float(seen.max()) / len(asked)
            separation = Separation(
                recognised=self._rate(named == asked),
                chance=chance,
                p=float(stats.binomtest(int(right.sum()), len(asked), chance, alternative="greater").pvalue),
                learned_from=int(learned.sum()),
                confusion=table.tolist(),
            )
        by_mode = np.stack([self._count_modes(played, codes == code) for code in range(num_codes)])
        return SeedValidation(
            seed=seed,
            episodes=len(codes),
            success_rate=self._rate(won),
            present=int(is_present(self._count_modes(played)).sum()),
            separation=separation,
            truth=self._compare_with_truth(played, by_mode, base) if won.sum() >= MIN_SUCCESSES else None,
            codes=[
                CodeCheck(
                    code=k,
                    episodes=int((codes == k).sum()),
                    success_rate=float(won[codes == k].mean()),
                    recognised=None if np.isnan(recognised[k]) else float(recognised[k]),
                    mode=self.modes[int(row.argmax())] if row.any() else None,
                    mode_shares=self._shares(row),
                )
                for k, row in enumerate(by_mode)
            ],
        )

    def _compare_with_truth(self, played: Trajectories, by_mode: Floats, base: BaseBehaviour) -> Truth:
        """Codes against true modes, from the successes of each code by mode (num_codes, num_modes)."""
        majority = np.where(by_mode.any(axis=1), by_mode.argmax(axis=1), -1)
        codes_of = [np.flatnonzero(majority == m).tolist() for m in range(len(self.modes))]
        return Truth(
            **dict(measure_agreement(played.code[played.success], played.mode[played.success])),
            purity=float(by_mode.max(axis=1).sum() / by_mode.sum()),
            redundant=[codes for codes in codes_of if len(codes) > 1],
            missing=[
                mode
                for mode, codes in zip(self.modes, codes_of, strict=True)
                if not codes and base.mode_shares[mode] >= MIN_MODE_SHARE
            ],
        )

    def _rate(self, wins: Mask) -> Interval:
        rate = int(wins.sum()) / len(wins)
        return make_interval(rate, wilson_interval(rate, len(wins), self.confidence))

    def _count_modes(self, played: Trajectories, among: Mask | bool = True) -> Floats:
        """Successes by true mode, (num_modes,)."""
        counts = np.bincount(played.mode[played.success & among], minlength=len(self.modes))
        return counts.astype(np.float64)

    def _shares(self, successes: Floats) -> dict[str, float]:
        return dict(zip(self.modes, mode_shares(successes).tolist(), strict=True))
