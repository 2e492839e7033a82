"""Worlds in which a mode is blocked: closed forms, and a second reckoning episode by episode."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmd_pipeline.metrics.blocked import (
    MAX_TRIALS,
    ROBOTS,
    _choose_while_failing,
    _count_features,
    _score,
    _survive_thompson,
    summarise_blocked,
)
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.schemas import Answers, Blocked, TrialOutcome
from bmd_pipeline.metrics.scores import MIN_MODE_SHARE
from bmd_pipeline.modes.trials import CodeTrials
from tests.metrics.drawn import NAMES, make_episodes


def commanded(code: np.ndarray, mode: np.ndarray, success: np.ndarray, behaviours: tuple[str | None, ...]) -> Episodes:
    part = make_episodes("dppo-bmd", 0, mode, success, 4)
    return replace(part, num_codes=len(behaviours), code=code, behaviours={"goal": behaviours})


def summarise(*parts: Episodes) -> Blocked:
    found = summarise_blocked(parts, "goal", 0.95, np.random.default_rng(0))
    assert found is not None
    return found


def means(outcome: TrialOutcome | None) -> tuple[float, float, float]:
    assert outcome is not None
    return outcome.success.mean, outcome.succeeded.mean, outcome.trials.mean


def geometric(p: float) -> tuple[float, float, float]:
    """Independent trials of success rate p, at most `MAX_TRIALS`, summed up one by one."""
    first = [p * (1 - p) ** t for t in range(MAX_TRIALS)]
    trials = sum((t + 1) * chance for t, chance in enumerate(first)) + MAX_TRIALS * (1 - sum(first))
    return p, sum(first), trials


def test_trying_again_is_geometric() -> None:
    """Ten episodes: five successes north, three east, two failures."""
    part = make_episodes("dppo", 0, np.array([0] * 5 + [1] * 3 + [2] * 2), np.arange(10) < 8, 4)
    blocked = summarise(part)
    assert blocked.max_trials == MAX_TRIALS
    assert means(blocked.favourite.retry) == pytest.approx(geometric(0.3))
    assert means(blocked.any_mode.retry) == pytest.approx(np.mean([geometric(0.3), geometric(0.5)], axis=0))
    assert blocked.favourite.told is None
    assert blocked.favourite.thompson is None
    assert blocked.favourite.retry.success.low < 0.2 < 0.4 < blocked.favourite.retry.success.high


def test_a_collapsed_policy_has_nothing_left() -> None:
    blocked = summarise(make_episodes("dppo", 0, np.zeros(20, int), np.ones(20, bool), 4))
    for answers in (blocked.favourite, blocked.any_mode):
        assert answers.retry.trials.model_dump() == {"mean": MAX_TRIALS, "low": MAX_TRIALS, "high": MAX_TRIALS, "n": 20}
        assert means(answers.retry) == (0, 0, MAX_TRIALS)


def test_codes_that_obey_lose_only_their_own_mode() -> None:
    """Four codes, a mode each, all perfect: told another code a robot succeeds at once, and the block costs a quarter
    of the codes drawn evenly."""
    code = np.arange(80) % 4
    blocked = summarise(commanded(code, code, np.ones(80, bool), NAMES))
    for answers in (blocked.favourite, blocked.any_mode):
        assert means(answers.told) == (1, 1, 1)
        assert means(answers.retry) == pytest.approx(geometric(0.75))
    # A first trial of an even code, and thereafter it avoids what has failed.
    assert 1 + 1 / 4 * 1 / 3 < means(blocked.any_mode.thompson)[2] < geometric(0.75)[2]


def test_thompson_sampling_of_a_code_that_works_and_one_that_fails() -> None:
    """A code that failed t - 1 times is chosen again with P(Beta(1, t) > Beta(1, 1)) = 1 / (t + 1). So the chance to
    have failed t times is 1 / (t + 1)!, and e - 1 trials are expected."""
    survival = _survive_thompson(np.array([0.0, 1.0]))
    assert survival == pytest.approx([1 / math.factorial(t + 1) for t in range(MAX_TRIALS + 1)], abs=0.03)
    assert survival[:-1].sum() == pytest.approx(math.e - 1, abs=0.06)


@given(st.floats(0, 1), st.integers(1, 6))
def test_thompson_sampling_of_equal_codes_is_geometric(rate: float, num_codes: int) -> None:
    survival = _survive_thompson(np.full((2, 3, num_codes), rate))
    assert survival.shape == (2, 3, MAX_TRIALS + 1)
    assert survival == pytest.approx(np.broadcast_to((1 - rate) ** np.arange(MAX_TRIALS + 1), survival.shape))


def test_the_told_code_owes_nothing_to_luck() -> None:
    """Of 24 codes of success rate one half, the best one on ten episodes succeeds in eight or nine of them."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        code, success = np.arange(480) % 24, rng.random(480) < 0.5
        part = commanded(code, 2 * (code % 2), success, tuple(NAMES[2 * (k % 2)] for k in range(24)))
        scores = _score(_count_features(part, "goal").sum(axis=0, keepdims=True), part, "goal")
        found.append(scores[0, 1, 0, 0])
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


@given(st.integers(0, 10_000), st.integers(1, 2))
@settings(max_examples=15)
def test_matches_brute_force(seed: int, num_seeds: int) -> None:
    """All answers again, episode by episode; codes without a behaviour are never told."""
    rng = np.random.default_rng(seed)
    parts, expected = [], []
    for k in range(num_seeds):
        n = int(rng.integers(4, 60))
        own = tuple(rng.choice(np.array([*NAMES[:3], None]), size=3))
        code, mode = rng.integers(3, size=n), rng.integers(3, size=n)
        part = replace(commanded(code, mode, rng.random(n) < rng.random(), own), seed=k)
        parts.append(part)
        expected.append(_reckon(part))
    blocked = summarise(*parts)
    for answers, rows in zip((blocked.favourite, blocked.any_mode), zip(*expected, strict=True), strict=True):
        assert means(answers.retry) == pytest.approx(np.mean([row[0] for row in rows], axis=0))
        assert means(answers.told) == pytest.approx(np.mean([row[1] for row in rows], axis=0))
        _check(answers)


def _reckon(part: Episodes) -> list[list[np.ndarray]]:
    """Outcomes of trying again and of being told another code: with the favourite blocked, and in the mean."""
    rows = list(zip(part.code.tolist(), part.labellings["goal"].labels(), part.success.tolist(), strict=True))
    wins = {name: sum(ok and mode == name for _, mode, ok in rows) for name in NAMES}
    favourite = max(NAMES, key=wins.__getitem__)
    present = [name for name in NAMES if wins[name] and wins[name] >= MIN_MODE_SHARE * sum(wins.values())]
    worlds = {}
    for name in present or [favourite]:
        again = geometric(sum(ok and mode != name for _, mode, ok in rows) / len(rows))
        told = []
        for half in (0, 1):
            known, held = (
                {k: [row for row in rows if row[0] == k][which::2] for k in range(part.num_codes)}
                for which in (half, 1 - half)
            )
            others = [k for k, mode in enumerate(part.behaviours["goal"]) if mode not in (None, name)]
            best = max(others, key=lambda k: sum(ok for *_, ok in known[k]) / max(1, len(known[k])), default=None)
            trials = [] if best is None else held[best]
            told.append(geometric(sum(ok and mode != name for _, mode, ok in trials) / max(1, len(trials))))
        worlds[name] = [np.array(again), np.mean(told, axis=0)]
    return [worlds[favourite], [np.mean(found, axis=0) for found in zip(*worlds.values(), strict=True)]]


def _check(answers: Answers) -> None:
    for _, outcome in answers:
        assert outcome.success.low >= 0
        assert outcome.success.high <= 1 + 1e-12
        assert outcome.trials.low >= 1
        assert outcome.trials.high <= MAX_TRIALS + 1e-12
        assert 0 <= outcome.succeeded.low <= outcome.succeeded.mean <= outcome.succeeded.high <= 1


def test_a_policy_that_never_succeeds() -> None:
    code = np.arange(12) % 3
    blocked = summarise(commanded(code, code, np.zeros(12, bool), (None, None, None)))
    for answers in (blocked.favourite, blocked.any_mode):
        for _, outcome in answers:
            assert means(outcome) == (0, 0, MAX_TRIALS)


def test_a_task_of_one_mode_has_no_other_way() -> None:
    part = make_episodes("dppo", 0, np.zeros(5, int), np.ones(5, bool), 1)
    assert summarise_blocked([part], "goal", 0.95, np.random.default_rng(0)) is None


def test_all_robots_at_once_choose_as_single_ones_do() -> None:
    """How often the first code is among the first three choices of robots that keep failing."""
    rng, found = np.random.default_rng(1), []
    for _ in range(1000):
        trials, chosen = CodeTrials(3), []
        for _ in range(3):
            chosen.append(trials.choose(rng))
            trials.update(chosen[-1], success=False)
        found.append(chosen.count(0))
    times, trials = np.zeros(1), _choose_while_failing(3)[:3]
    for before, code, _ in trials:
        times = times[before] + (code == 0)
    share = trials[-1][2]
    for count in range(4):
        expected = np.mean(np.array(found) == count)
        assert share[times == count].sum() == pytest.approx(expected, abs=4 * math.sqrt(0.25 * (1 / 1000 + 1 / ROBOTS)))
