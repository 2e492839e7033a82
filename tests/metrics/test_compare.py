"""The comparison of methods: right direction, right test, one family of corrections."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.bootstrap import PairedBootstrap, make_paired_bootstrap
from bmd_pipeline.metrics.compare import Pair, compare_pairs, score_policies
from bmd_pipeline.metrics.hypotheses import holm
from bmd_pipeline.metrics.schemas import PolicyPair
from bmd_pipeline.metrics.scores import COMPARED, SCORES
from tests.metrics.drawn import draw_episodes

PAIRS = [Pair("dsrl-bmd", "dsrl", "counterpart"), Pair("dsrl", "pretrained", "base")]


def make_sample(seeds: int, n: int = 200) -> PairedBootstrap:
    rng = np.random.default_rng(0)
    kinds = {"pretrained": (0.7, [1, 1]), "dsrl": (0.95, [30, 1]), "dsrl-bmd": (0.95, [1, 1])}
    parts = {
        name: [draw_episodes(name, k, rates=[rate, rate], shares=shares, n=n, rng=rng) for k in range(seeds)]
        for name, (rate, shares) in kinds.items()
    }
    return make_paired_bootstrap(parts, tau=0.8, num_resamples=1000, rng=rng)


def compare(sample: PairedBootstrap, pairs: list[Pair] = PAIRS, min_seeds: int = 5) -> list[PolicyPair]:
    return compare_pairs(sample, pairs, confidence=0.95, min_seeds=min_seeds, rng=np.random.default_rng(0))


def test_policies_are_scored_over_seeds() -> None:
    sample = make_sample(seeds=5)
    scores = score_policies(sample, 0.95)
    assert list(scores) == ["pretrained", "dsrl", "dsrl-bmd"]
    block = scores["dsrl"]
    assert tuple(block.metrics) == SCORES
    rates = block.metrics["success_rate"].seeds
    assert rates == [part.success.mean() for part in sample.episodes["dsrl"]]
    assert block.metrics["success_rate"].mean.value == pytest.approx(np.mean(rates))
    assert block.metrics["success_rate"].iqm.value == pytest.approx(np.mean(sorted(rates)[1:4]))


def test_differences_point_the_right_way() -> None:
    counterpart, base = compare(make_sample(seeds=3))
    assert (counterpart.one, counterpart.other, counterpart.kind) == ("dsrl-bmd", "dsrl", "counterpart")
    assert tuple(counterpart.metrics) == COMPARED
    entropy, success = counterpart.metrics["mode_entropy"], base.metrics["success_rate"]
    for found in (entropy, success):
        assert 0 < found.difference.low <= found.difference.value <= found.difference.high
        assert found.by_episode.p_holm < 0.05
        assert found.probability_of_improvement.value == 1.0
    assert counterpart.metrics["success_rate"].by_episode.p_holm > 0.05


def test_identical_policies_are_not_told_apart() -> None:
    sample = make_sample(seeds=3)
    same = make_paired_bootstrap(
        {"dsrl": sample.episodes["dsrl"], "dsrl-bmd": sample.episodes["dsrl"]},
        tau=0.8,
        num_resamples=200,
        rng=np.random.default_rng(0),
    )
    (pair,) = compare(same, PAIRS[:1])
    for name, found in pair.metrics.items():
        assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0), name
        assert found.by_episode.p == found.by_episode.p_holm == 1.0
        assert found.by_seed is not None
        assert found.by_seed.p == 1.0
        assert found.probability_of_improvement.value == 0.5


def test_correction_counts_every_comparison_and_metric() -> None:
    pairs = compare(make_sample(seeds=3))
    tests = [found.by_episode for pair in pairs for found in pair.metrics.values()]
    assert [test.p_holm for test in tests] == holm([test.p for test in tests])


def test_seeds_are_read_once_their_test_can_decide() -> None:
    """8 metrics of one pair: 2 · 8 · 2⁻ⁿ <= .05 from 9 seeds on."""
    for seeds, unit in ((3, "episodes"), (8, "episodes"), (9, "seeds")):
        (pair,) = compare(make_sample(seeds=seeds, n=60), PAIRS[:1])
        found = pair.metrics["mode_entropy"]
        assert found.unit == unit
        assert found.by_seed is not None
        assert found.by_seed.can_decide == (unit == "seeds")
        assert found.by_seed.smallest_p == 2 * 0.5**seeds
        assert len(found.by_seed.differences) == seeds
    assert found.by_seed.p == found.by_seed.smallest_p  # all nine seeds agree
    assert compare(make_sample(seeds=9, n=60), PAIRS[:1], min_seeds=10)[0].metrics["mode_entropy"].unit == "episodes"


def test_one_seed_has_no_test_over_seeds() -> None:
    (pair,) = compare(make_sample(seeds=1), PAIRS[:1])
    found = pair.metrics["mode_entropy"]
    assert found.by_seed is None
    assert found.unit == "episodes"
