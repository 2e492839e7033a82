"""Does a policy have more than one way? A test that needs no labels and assumes no distribution.

Two episodes from the same start, under independent noise, are twins. If along some axis the behaviour from every start
has a single mode, the difference of twins is symmetric and single-peaked at 0, and stays so over any mixture of starts:
the distribution function of its absolute value is concave. (The density of the difference at t sums the overlaps of
pairs of level sets of the behaviour's density, one of them shifted by t. With a single mode level sets are nested
intervals, so that every overlap is largest at 0 and shrinks with |t|.) Two ways with a gap between break that, since
twins are then either close or a gap apart. What differs from start to start cancels out: a policy that always does one
thing here and another thing there has one way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]

NULL_DRAWS = 1999
"""Samples of the null distribution: no p is below 1 / (NULL_DRAWS + 1)."""
_COMPONENTS = 3
_PAIRS_AS_AXES = 20
_SHARES = np.arange(1, 101) / 200


@dataclass(frozen=True)
class TwinTest:
    """Outcome of the test.

    Attributes:
        gap: how far the distances of twins are from being single-peaked: about the share of twins that parted.
        p: chance of as large a gap if behaviour had a single mode from every start.
        pairs: twins that were tested; about as many chose the axis.
        detectable_share: smallest share of a second way, well apart from the first, that would have been found with
            the power asked for; None if not even equal shares would.
    """

    gap: float
    p: float
    pairs: int
    detectable_share: float | None


def compare_twins(one: Floats, other: Floats, *, alpha: float, power: float, rng: np.random.Generator) -> TwinTest:
    """Tests whether behaviour has a single mode from every start.

    One half of the twins chooses the axis on which it looks least single-peaked, the other half is tested on it.
    Uniform distances are the hardest case of the null hypothesis. For another concave F the empirical function is that
    of a uniform sample taken at F(x), and so is a concave majorant of it: the gap can't be larger. Uniform samples of
    the same size therefore bound p exactly.

    Args:
        one: (pairs, points, features) what an episode from each start did; at least 4 pairs.
        other: (pairs, points, features) the same of its twin.
        alpha: level at which `detectable_share` is judged.
        power: see `detectable_share`.
        rng: splits the twins and draws the null distribution.
    """
    difference = (one - other)[rng.permutation(len(one))]
    half = len(difference) // 2
    chosen, tested = difference[:half], difference[half:]
    axis = max(_propose_axes(chosen), key=lambda candidate: concavity_gap(_project(chosen, candidate)))
    gap = concavity_gap(_project(tested, axis))
    null = np.array([concavity_gap(draw) for draw in rng.random((NULL_DRAWS, len(tested)))])
    p = (1 + int((null >= gap).sum())) / (1 + NULL_DRAWS)
    return TwinTest(gap, p, len(tested), _find_share(float(np.quantile(null, 1 - alpha)), len(tested), power))


def concavity_gap(distances: Floats) -> float:
    """Largest distance of the empirical distribution function from its least concave majorant.

    The slopes of the majorant are the antitonic regression of the function's own (Grenander 1956).

    Args:
        distances: (n,) at least 0.
    """
    places, counts = np.unique(distances, return_counts=True)
    steps = counts / len(distances)
    if places[0] == 0.0:  # equal twins sit on the peak itself: both functions begin at their share
        places, steps = places[1:], steps[1:]
    if len(places) == 0:
        return 0.0
    widths = np.diff(places, prepend=0.0)
    slopes = isotonic_regression(steps / widths, weights=widths, increasing=False).x
    below = np.cumsum(steps) - steps  # the function is lowest just before it steps
    return float((np.cumsum(slopes * widths) - below).max())


def _propose_axes(difference: Floats) -> Floats:
    """Axes (num_axes, points, features): principal components and single differences, of whole trajectories and of
    each point alone. Ways that part late, or meet again at the goal, are apart at some points only.
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


def _find_share(critical: float, pairs: int, power: float) -> float | None:
    """Smallest share s whose parted twins, 2s(1 - s) of all, exceed the critical gap with this power."""
    parted = 2 * _SHARES * (1 - _SHARES)
    found = stats.binom.sf(np.ceil(critical * pairs) - 1, pairs, parted) >= power
    return float(_SHARES[found.argmax()]) if found.any() else None
