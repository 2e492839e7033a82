"""The score test of paired proportions: known cases, an independent maximum, and how often it errs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from bmd_pipeline.metrics.hypotheses import PairedCounts, count_pairs, paired_score, paired_score_test, tango_interval


def test_pairs_are_counted_over_seeds() -> None:
    one = [np.array([True, True, False]), np.array([True, False, False])]
    other = [np.array([True, False, True]), np.array([False, False, False])]
    counts = count_pairs(one, other)
    assert counts == PairedCounts(only_one=2, only_other=1, total=6)
    assert counts.difference == pytest.approx(1 / 6)


def test_at_no_difference_it_is_mcnemars_test() -> None:
    above, below = paired_score_test(PairedCounts(12, 2, 100), 0.0)
    assert above == pytest.approx(stats.norm.sf(10 / np.sqrt(14)))
    assert below == pytest.approx(1 - above)


@pytest.mark.parametrize("difference", [-0.3, -0.02, 0.1, 0.5])
def test_its_variance_is_that_of_the_constrained_maximum_likelihood(difference: float) -> None:
    """Tango's closed form against a numerical maximum over the one free share."""
    counts = PairedCounts(12, 5, 60)
    same = counts.total - counts.only_one - counts.only_other

    def surprise(share: float) -> float:
        lost, won = share, share + difference
        return -(counts.only_other * np.log(lost) + counts.only_one * np.log(won) + same * np.log(1 - lost - won))

    low, high = max(0.0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9
    share = optimize.minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
    assert counts.null_variance(difference) == pytest.approx(2 * share + difference - difference**2, rel=1e-5)


def test_policies_that_never_differ_need_enough_episodes_to_exclude_a_margin() -> None:
    # Score sqrt(n margin / (1 - margin)): with margin .02 it takes n = 133 to pass 1.645.
    assert paired_score(PairedCounts(0, 0, 96), -0.02) == pytest.approx(np.sqrt(96 * 0.02 / 0.98))
    assert paired_score_test(PairedCounts(0, 0, 96), -0.02)[0] > 0.05
    assert paired_score_test(PairedCounts(0, 0, 133), -0.02)[0] < 0.05
    assert paired_score(PairedCounts(0, 0, 96), 0.0) == 0.0


def test_a_published_interval() -> None:
    """Airway responses before and after a transplant: 1 and 7 discordant of 21 (Fagerland et al. 2014)."""
    assert tango_interval(PairedCounts(1, 7, 21), 0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_the_interval_ends_where_the_test_does() -> None:
    counts = PairedCounts(12, 2, 50)
    low, high = tango_interval(counts, 0.95)
    assert paired_score(counts, low) == pytest.approx(1.95996, abs=1e-4)
    assert paired_score(counts, high) == pytest.approx(-1.95996, abs=1e-4)


def test_intervals_at_the_edge_stay_in_range() -> None:
    assert tango_interval(PairedCounts(30, 0, 30), 0.95)[1] == 1.0
    assert tango_interval(PairedCounts(0, 30, 30), 0.95)[0] == -1.0
    low, high = tango_interval(PairedCounts(0, 0, 50), 0.95)
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.95996**2 / (50 + 1.95996**2), rel=1e-4)


def test_it_errs_as_often_as_it_says_at_the_margin() -> None:
    """True difference exactly at the margin: the non-inferiority test passes in about 5 % of the draws."""
    rng = np.random.default_rng(0)
    draws = rng.multinomial(600, [0.03, 0.05, 0.92], size=3000)
    passed = [paired_score_test(PairedCounts(won, lost, 600), -0.02)[0] <= 0.05 for won, lost, _ in draws.tolist()]
    assert 0.035 <= np.mean(passed) <= 0.065


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = rng.multinomial(200, [0.06, 0.02, 0.92], size=400).tolist()
    ends = [tango_interval(PairedCounts(won, lost, 200), 0.9) for won, lost, _ in draws]
    assert 0.86 <= np.mean([low <= 0.04 <= high for low, high in ends]) <= 0.94
