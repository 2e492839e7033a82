"""Which iteration is kept, and how long its episodes were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.config.schema import CurriculumConfig
from bmd_pipeline.rl.rollout import find_dead_codes
from bmd_pipeline.rl.selection import Candidate
from bmd_pipeline.rl.trainer import compute_max_steps

START = Candidate(0, 0.8, 400, (0.9, 0.9, 0.9, 0.5), (1.0, 1.0, 0.9, 0.7))  # 100 episodes per code, obeyed .9


def _after(success: tuple[float, ...], obeyed: tuple[float, ...], iteration: int = 1) -> Candidate:
    return Candidate(iteration, sum(success) / len(success), 400, success, obeyed)


def test_the_start_falls_short_of_nothing() -> None:
    assert START.compute_shortfall(START, 1.0) == 0.0


@pytest.mark.parametrize(
    ("obeyed", "shortfall"),
    [((0.9, 0.8, 0.8, 0.74), 0.0), ((1.0, 1.0, 1.0, 0.24), 0.0), ((0.8, 0.8, 0.8, 0.4), 0.11), ((0.0,) * 4, 0.81)],
)
def test_codes_must_be_obeyed_as_often_as_before_but_for_a_share(obeyed: tuple[float, ...], shortfall: float) -> None:
    """On average: one code may lose what another one wins."""
    assert _after(START.success_per_code, obeyed).compute_shortfall(START, 0.9) == pytest.approx(shortfall)


def test_no_code_may_succeed_significantly_less_often() -> None:
    """One standard error of a difference between .9 and .81 in 100 episodes each is .049, and .058 to .5.

    With four codes 2.24 of them are chance.
    """
    obeyed = START.obeyed_per_code
    assert _after((0.81, 0.9, 0.9, 0.5), obeyed).compute_shortfall(START, 0.9) == 0.0
    worse = _after((0.5, 1.0, 1.0, 1.0), obeyed)
    assert worse.success_rate > START.success_rate
    assert worse.compute_shortfall(START, 0.9) == pytest.approx(0.4 - 2.2414 * (0.0034**0.5), abs=1e-4)
    two = _after((0.5, 0.5, 1.0, 1.0), obeyed)
    assert two.compute_shortfall(START, 0.9) == pytest.approx(2 * worse.compute_shortfall(START, 0.9))


def test_fewer_episodes_leave_more_to_chance() -> None:
    few, many = (Candidate(1, 0.6, n, (0.6, 0.6), (1.0, 1.0)) for n in (20, 2000))
    start = Candidate(0, 0.8, 2000, (0.8, 0.8), (1.0, 1.0))
    assert few.compute_shortfall(start, 0.9) == 0.0 < many.compute_shortfall(start, 0.9)


rates = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).map(tuple)


@given(rates, rates, rates, rates, st.integers(3, 1000), st.floats(0.01, 1.0))
def test_doing_better_never_adds_to_a_shortfall(
    before: tuple[float, ...],
    obeyed_before: tuple[float, ...],
    success: tuple[float, ...],
    obeyed: tuple[float, ...],
    episodes: int,
    share: float,
) -> None:
    start = Candidate(0, 0.5, episodes, before, obeyed_before)
    now = Candidate(1, 0.5, episodes, success, obeyed)
    risen = Candidate(1, 0.5, episodes, tuple(map(max, before, success)), tuple(map(max, obeyed_before, obeyed)))
    assert risen.compute_shortfall(start, share) == 0.0 <= now.compute_shortfall(start, share)
    assert now.compute_shortfall(start, share) <= now.compute_shortfall(start, 1.0)
    assert now.compute_shortfall(start, 0.0) == 0.0


def test_success_decides_among_candidates_that_qualify() -> None:
    better = _after((1.0, 1.0, 0.9, 0.5), START.obeyed_per_code)
    assert better.is_better_than(START, START, 0.9)
    assert not START.is_better_than(better, START, 0.9)
    again = _after((1.0, 1.0, 0.9, 0.5), START.obeyed_per_code, iteration=2)
    assert again.is_better_than(better, START, 0.9), "ties go to the later one"


def test_what_was_there_at_the_start_comes_before_success() -> None:
    lost = _after((1.0, 1.0, 1.0, 1.0), (0.25, 0.25, 0.25, 0.25))
    assert not lost.is_better_than(START, START, 0.9)
    assert START.is_better_than(lost, START, 0.9)
    worse = _after((1.0, 1.0, 1.0, 1.0), (0.2, 0.2, 0.2, 0.2), iteration=2)
    assert lost.is_better_than(worse, START, 0.9), "when none qualifies, what lost least is kept"
    assert not worse.is_better_than(lost, START, 0.9)


def test_without_a_required_share_or_without_codes_success_alone_decides() -> None:
    lost = _after((1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0))
    assert lost.is_better_than(START, START, 0.0)
    plain = Candidate(0, 0.8, 400)
    assert Candidate(1, 0.81, 400).is_better_than(plain, plain, 1.0)
    assert not Candidate(1, 0.79, 400).is_better_than(plain, plain, 1.0)


def test_codes_that_are_obeyed_no_more_often_than_chance_are_dead() -> None:
    assert find_dead_codes((0.25, 0.26, 1.0, 0.0)) == [0, 3]
    assert find_dead_codes(()) == []


def test_the_curriculum_grows_linearly_to_the_full_horizon() -> None:
    config = CurriculumConfig(start_fraction=0.25, iterations=10)
    steps = [compute_max_steps(config, i, 100) for i in range(15)]
    assert steps[0] == 25
    assert steps[4] == 55
    assert steps[10:] == [100] * 5
    assert compute_max_steps(CurriculumConfig(), 0, 7) == 7
