"""The test whether more modes are solved, or present: it sees what is there, and is not fooled at the edge of τ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bmd_pipeline.metrics import hypotheses
from bmd_pipeline.metrics.hypotheses import ModeCounts, more_modes_interval, more_modes_test

TAU = 0.8


def counts(rates: list[float], n: float = 256, seeds: int = 3) -> ModeCounts:
    """Equally visited modes that succeed at exactly these rates, the same in every seed."""
    visits = np.full((seeds, len(rates)), n)
    return ModeCounts(visits * np.array(rates), visits)


def draw(rates: list[float], rng: np.random.Generator, draws: int, n: int = 64, seeds: int = 3) -> ModeCounts:
    visits = np.full((draws, seeds, len(rates)), float(n))
    return ModeCounts(rng.binomial(n, rates, size=visits.shape).astype(float), visits)


def test_tails_are_those_of_the_binomial() -> None:
    wins, trials = np.array([0.0, 3.0, 7.0, 10.0]), np.full(4, 10.0)
    np.testing.assert_allclose(hypotheses._upper_tail(wins, trials, 0.6), stats.binom.sf(wins - 1, 10, 0.6))
    np.testing.assert_allclose(hypotheses._lower_tail(wins, trials, 0.6), stats.binom.cdf(wins, 10, 0.6))


def test_tails_between_whole_counts_lie_between_their_neighbours() -> None:
    low, middle, high = hypotheses._upper_tail(np.array([6.0, 6.5, 7.0]), np.full(3, 10.0), 0.6)
    assert low > middle > high


def test_one_seed_and_mode_by_hand() -> None:
    """Two statements, both must hold: the larger p decides."""
    one, other = (
        ModeCounts(np.array([[99.0]]), np.array([[100.0]])),
        ModeCounts(np.array([[70.0]]), np.array([[100.0]])),
    )
    above, below = more_modes_test(one, other, TAU)
    solved = stats.binom.sf(98, 100, TAU)
    lost = 2 * stats.binom.cdf(70, 100, TAU)  # of two ways to be lost
    assert above == pytest.approx(max(solved, lost))
    assert below == 1.0


def test_clear_cases_are_decided_both_ways() -> None:
    many, few = counts([0.97] * 4), counts([0.97, 0.3, 0.3, 0.3])
    above, below = more_modes_test(many, few, TAU)
    assert above < 1e-6
    assert below == 1.0
    assert more_modes_test(few, many, TAU) == (below, above)
    assert more_modes_interval(many, few, TAU, 0.9) == (3.0, 3.0)
    assert more_modes_interval(few, many, TAU, 0.9) == (-3.0, -3.0)


def test_equal_policies_are_never_told_apart() -> None:
    same = counts([0.97, 0.97, 0.3, 0.3])
    above, below = more_modes_test(same, same, TAU)
    assert above == below == 1.0
    assert more_modes_interval(same, same, TAU, 0.9) == (0.0, 0.0)


def test_a_collapsed_policy_has_lost_modes_that_it_never_visits() -> None:
    visits = np.array([[1000.0, 0.0]] * 3)
    collapsed = ModeCounts(visits, visits)
    above, _ = more_modes_test(counts([0.95, 0.95]), collapsed, TAU)
    assert above < 0.01


def test_one_lost_mode_in_one_seed_is_enough_if_all_else_is_sure() -> None:
    other = counts([0.97, 0.97])
    other.successes[0, 1] = 10
    assert more_modes_test(counts([0.97, 0.97]), other, TAU)[0] < 0.01


def test_rates_at_tau_do_not_count_as_lost_modes() -> None:
    """Both policies solve all modes, the second barely: counting calls the first better nearly always."""
    rng = np.random.default_rng(0)
    sure, barely = draw([0.99] * 4, rng, 2000), draw([0.801] * 4, rng, 2000)
    counted = [(part.successes / part.visits >= TAU).sum(axis=(1, 2)) for part in (sure, barely)]
    assert np.mean(counted[0] > counted[1]) > 0.9
    above, _ = more_modes_test(sure, barely, TAU)
    assert np.mean(above <= 0.05) <= 0.05


def test_the_interval_holds_the_truth_at_the_edge() -> None:
    rng = np.random.default_rng(1)
    sure, barely = draw([0.99, 0.99], rng, 200), draw([0.81, 0.3], rng, 200)
    ends = []
    for i in range(200):
        one, other = (ModeCounts(part.successes[i], part.visits[i]) for part in (sure, barely))
        ends.append(more_modes_interval(one, other, TAU, 0.9))
    assert np.mean([low <= 1.0 <= high for low, high in ends]) >= 0.9


def test_present_asks_for_the_share_alone() -> None:
    """Modes that succeed too rarely to be solved are present all the same; one that is never visited isn't."""
    weak = counts([0.5] * 4)
    visits = np.array([[1000.0, 0.0, 0.0, 0.0]] * 3)
    collapsed = ModeCounts(visits, visits)
    assert more_modes_test(weak, collapsed, None)[0] < 0.01
    assert more_modes_test(weak, collapsed, TAU)[0] == 1.0
    assert more_modes_interval(weak, collapsed, None, 0.9) == (3.0, 3.0)
