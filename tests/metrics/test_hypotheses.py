"""Verdicts: supported, refuted and undecided where each is due."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bmd_pipeline.metrics.bootstrap import PairedBootstrap, make_paired_bootstrap
from bmd_pipeline.metrics.episodes import Episodes, ModeWeights
from bmd_pipeline.metrics.hypotheses import ENTROPY_BOOTSTRAP, HypothesisTester
from bmd_pipeline.metrics.schemas import Hypothesis
from tests.metrics.drawn import draw_episodes, make_episodes

PAIR = ("dsrl-bmd", "dsrl")
Kind = tuple[list[float], list[float]]


def make_sample(bmd: Kind, plain: Kind, *, seeds: int = 3, n: int = 400, resamples: int = 500) -> PairedBootstrap:
    rng = np.random.default_rng(0)
    parts = {
        name: [draw_episodes(name, k, rates=rates, shares=shares, n=n, rng=rng) for k in range(seeds)]
        for name, (rates, shares) in zip(PAIR, (bmd, plain), strict=True)
    }
    return make_paired_bootstrap(parts, tau=0.8, num_resamples=resamples, rng=rng)


def evaluate(sample: PairedBootstrap, min_seeds: int = 5, success_margin: float = 0.02) -> dict[str, Hypothesis]:
    rng = np.random.default_rng(0)
    tester = HypothesisTester(sample, [PAIR], success_margin=success_margin, alpha=0.05, min_seeds=min_seeds, rng=rng)
    found = tester.evaluate()
    return {hypothesis.hypothesis: hypothesis for hypothesis in found[0].hypotheses}


EVEN: Kind = ([0.97, 0.97, 0.97, 0.97], [1, 1, 1, 1])
COLLAPSED: Kind = ([0.97, 0.97, 0.97, 0.97], [400, 1, 1, 1])


def test_modes_solved_at_equal_success_support_all_three() -> None:
    found = evaluate(make_sample(EVEN, COLLAPSED, n=1000))
    assert {name: one.verdict for name, one in found.items()} == dict.fromkeys(("H1", "H2", "H3"), "supported")
    assert all(one.p_above_holm <= 0.05 < one.p_below_holm for one in found.values())
    assert found["H1"].threshold == -0.02
    assert found["H2"].difference.value == pytest.approx(3.0)


def test_the_other_way_round_refutes_modes_and_entropy() -> None:
    found = evaluate(make_sample(COLLAPSED, EVEN, n=1000))
    assert {name: one.verdict for name, one in found.items()} == {"H1": "supported", "H2": "refuted", "H3": "refuted"}


@pytest.mark.parametrize("lost", range(1, 24))
def test_a_difference_of_modes_without_spread_survives_rounding(lost: int) -> None:
    """Every mode is solved or lost for certain: the interval is a point, and sums of thirds round either way."""
    rng = np.random.default_rng(0)
    mode = np.repeat(np.arange(24), 50)

    def make(policy: str, seed: int, solved: int) -> Episodes:
        names = tuple(map(str, range(24)))
        return replace(
            make_episodes(policy, seed, np.zeros_like(mode), mode < solved, 1),
            labellings={"way": ModeWeights(names, np.eye(24)[mode])},
        )

    bmd, plain = PAIR
    parts = {
        bmd: [make(bmd, seed, 24 - (lost if seed == 0 else 0)) for seed in range(3)],
        plain: [make(plain, seed, 1) for seed in range(3)],
    }
    found = evaluate(make_paired_bootstrap(parts, tau=0.8, num_resamples=50, rng=rng))["H2"]
    assert found.difference.value == pytest.approx(23 - lost / 3)


def test_a_loss_of_success_refutes_the_first() -> None:
    found = evaluate(make_sample(([0.9] * 4, [1] * 4), EVEN))
    assert found["H1"].verdict == "refuted"
    assert found["H1"].difference.high < -0.02


def test_identical_policies_support_the_first_and_leave_the_others_open() -> None:
    sample = make_sample(EVEN, EVEN)
    same = make_paired_bootstrap(
        dict.fromkeys(PAIR, sample.episodes["dsrl"]), tau=0.8, num_resamples=500, rng=np.random.default_rng(0)
    )
    found = evaluate(same)
    assert {name: one.verdict for name, one in found.items()} == {
        "H1": "supported",
        "H2": "undecided",
        "H3": "undecided",
    }


def test_fewer_successes_alone_are_no_lower_entropy() -> None:
    """The published entropies differ by their bias; what is compared doesn't."""
    found = evaluate(make_sample(([0.95] * 4, [1] * 4), ([0.1] * 4, [1] * 4), n=600))["H3"]
    assert abs(found.difference.value) < 0.5 * (found.one - found.other)
    assert found.verdict == "undecided"
    assert found.test == ENTROPY_BOOTSTRAP


def test_too_few_episodes_leave_it_open() -> None:
    found = evaluate(make_sample(([0.96] * 4, [1] * 4), ([0.965] * 4, [1] * 4), n=100))["H1"]
    assert found.verdict == "undecided"


def test_the_margin_decides_the_first_hypothesis() -> None:
    sample = make_sample(([0.94] * 4, [1] * 4), EVEN, n=1000)
    assert evaluate(sample, success_margin=0.1)["H1"].verdict == "supported"
    assert evaluate(sample, success_margin=0.0)["H1"].verdict == "refuted"


def test_with_few_seeds_the_verdict_is_about_the_policies() -> None:
    found = evaluate(make_sample(EVEN, COLLAPSED, seeds=3))["H3"]
    assert found.unit == "episodes"


def test_with_enough_seeds_the_seeds_decide() -> None:
    found = evaluate(make_sample(EVEN, COLLAPSED, seeds=6, n=150, resamples=300))
    assert found["H3"].unit == "seeds"
    assert found["H3"].verdict == "supported"
    assert found["H3"].p_above == 0.5**6
    # Five seeds would not do whatever they showed, so that episodes decide, about these policies.
    assert evaluate(make_sample(EVEN, COLLAPSED, seeds=5, n=150, resamples=300))["H3"].unit == "episodes"
    assert evaluate(make_sample(EVEN, COLLAPSED, seeds=6, n=150, resamples=300), min_seeds=7)["H3"].unit == "episodes"


def test_seeds_that_disagree_leave_it_open() -> None:
    rng = np.random.default_rng(0)
    shares = [[1, 1, 1, 1], [9, 1, 1, 1], [1, 1, 1, 1], [9, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    bmd = [draw_episodes("dsrl-bmd", k, rates=[0.97] * 4, shares=s, n=200, rng=rng) for k, s in enumerate(shares)]
    plain = [draw_episodes("dsrl", k, rates=[0.97] * 4, shares=[3, 1, 1, 1], n=200, rng=rng) for k in range(6)]
    sample = make_paired_bootstrap(dict(zip(PAIR, (bmd, plain), strict=True)), tau=0.8, num_resamples=300, rng=rng)
    found = evaluate(sample)["H3"]
    assert found.unit == "seeds"
    assert found.verdict == "undecided"


def test_holm_counts_all_pairs() -> None:
    rng = np.random.default_rng(0)
    parts = {
        name: [draw_episodes(name, k, rates=[0.97] * 2, shares=[1, 1], n=100, rng=rng) for k in range(2)]
        for name in ("dsrl-bmd", "dsrl", "dppo-bmd", "dppo")
    }
    sample = make_paired_bootstrap(parts, tau=0.8, num_resamples=300, rng=rng)
    pairs = [("dsrl-bmd", "dsrl"), ("dppo-bmd", "dppo")]
    tester = HypothesisTester(sample, pairs, success_margin=0.02, alpha=0.05, min_seeds=5, rng=rng)
    assert tester.family == 6
    assert [(pair.one, len(pair.hypotheses)) for pair in tester.evaluate()] == [("dsrl-bmd", 3), ("dppo-bmd", 3)]
