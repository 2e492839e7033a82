"""Scores over base policies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bmd_pipeline.metrics.compare import pool_pair, pool_scores, student_interval
from bmd_pipeline.metrics.episodes import Episodes
from bmd_pipeline.metrics.schemas import PolicyBlock
from bmd_pipeline.metrics.summary import summarise_policy
from tests.metrics.drawn import draw_episodes

FREE = (-np.inf, np.inf)


def make_parts(policy: str, rate: float, shares: list[float], seed: int) -> list[Episodes]:
    rng = np.random.default_rng(seed)
    return [draw_episodes(policy, k, rates=[rate] * len(shares), shares=shares, n=200, rng=rng) for k in (0, 1)]


def summarise(parts: list[Episodes]) -> PolicyBlock:
    return summarise_policy(parts, config_hash="", tau=0.8, confidence=0.95, rng=np.random.default_rng(0))


def make_block(policy: str, rate: float, shares: list[float], seed: int) -> PolicyBlock:
    return summarise(make_parts(policy, rate, shares, seed))


def test_the_interval_is_students() -> None:
    values = np.array([0.4, 0.7, 0.5, 0.65])
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    found = student_interval(values, 0.95, FREE)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_it_covers_the_mean_of_few_base_policies() -> None:
    rng = np.random.default_rng(0)
    found = [student_interval(rng.normal(size=3), 0.95, FREE) for _ in range(2000)]
    assert np.mean([one.low < 0 < one.high for one in found]) == pytest.approx(0.95, abs=0.015)


def test_it_ends_where_the_score_does() -> None:
    assert student_interval(np.array([0.999, 0.9, 1.0]), 0.95, (0.0, 1.0)).high == 1.0


def test_every_base_policy_counts_once() -> None:
    blocks = [make_block("dsrl", rate, [1, 1, 1, 1], seed) for seed, rate in enumerate((0.5, 0.9))]
    scores = pool_scores(blocks, 0.95)
    assert scores["success_rate"].bases == [block.success_rate.mean for block in blocks]
    assert scores["success_rate"].mean.value == pytest.approx(np.mean([b.success_rate.mean for b in blocks]))
    assert scores["mode_entropy"].mean.high <= np.log(4)


def test_differences_are_paired_by_base_policy() -> None:
    """Base policies differ by more than the methods do; the pairs still show it."""
    rates = (0.3, 0.5, 0.7, 0.9)
    episodes = {
        "dsrl": [make_parts("dsrl", rate, [60, 1, 1, 1], seed) for seed, rate in enumerate(rates)],
        "dsrl-bmd": [make_parts("dsrl-bmd", rate, [1, 1, 1, 1], 9 + seed) for seed, rate in enumerate(rates)],
    }
    blocks = {policy: [summarise(parts) for parts in rows] for policy, rows in episodes.items()}
    pair = pool_pair(blocks, episodes, "dsrl-bmd", "dsrl", 0.95, np.random.default_rng(0))
    entropy, success = pair.metrics["mode_entropy"], pair.metrics["success_rate"]
    assert entropy.mean.low > 0.5
    assert (entropy.p_above, entropy.p_below) == (1 / 16, 1.0)
    assert success.mean.low < 0 < success.mean.high
    assert "mutual_information" not in pair.metrics


def test_succeeding_more_often_is_not_taken_for_more_modes() -> None:
    """Forty successes look less even than two hundred, even if all modes are equally likely in both."""
    rates = {"dsrl": 0.2, "dsrl-bmd": 0.98}
    episodes = {
        policy: [make_parts(policy, rate, [1, 1, 1, 1], 10 * i + seed) for seed in range(8)]
        for i, (policy, rate) in enumerate(rates.items())
    }
    blocks = {policy: [summarise(parts) for parts in rows] for policy, rows in episodes.items()}
    apart = [blocks["dsrl-bmd"][k].mode_entropy.mean - blocks["dsrl"][k].mode_entropy.mean for k in range(8)]
    entropy = pool_pair(blocks, episodes, "dsrl-bmd", "dsrl", 0.95, np.random.default_rng(0)).metrics["mode_entropy"]
    assert min(apart) > 0.0
    assert entropy.mean.low < 0.0 < entropy.mean.high
