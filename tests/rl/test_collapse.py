"""Collapses that no loss shows."""

from __future__ import annotations

import json

import pytest

from bmd_pipeline.rl.selection import Candidate, CollapseWatch


def make_watch(dims: int = 4) -> tuple[CollapseWatch, list[str]]:
    told: list[str] = []
    return CollapseWatch(dims, 100, told.append), told


def metrics(entropy: float, steps: float = 3.0) -> dict[str, float]:
    return {"losses/entropy": entropy, "losses/policy_steps": steps}


def test_entropy_that_falls_below_the_floor_is_told_once() -> None:
    watch, told = make_watch()
    watch.see_metrics(1, metrics(0.0, steps=0.0))  # only the critic learned: there is no entropy
    watch.see_metrics(2, metrics(6.0))
    watch.see_metrics(3, metrics(-1.9))
    assert told == []
    watch.see_metrics(4, metrics(-2.1))  # by 8.1 nats over 4 dimensions
    watch.see_metrics(5, metrics(-9.0))
    assert len(told) == 1
    assert told[0].startswith("iteration 4: the policy hardly explores any more")
    assert "2.02 nats per dimension" in told[0]
    assert "raise finetune.ppo.entropy_weight, or" in told[0]


def test_a_spread_that_is_not_trained_can_not_collapse() -> None:
    watch, told = make_watch(dims=0)
    watch.see_metrics(1, metrics(0.0))
    watch.see_metrics(2, metrics(-100.0))
    assert told == []


def test_success_must_fall_significantly() -> None:
    watch, told = make_watch()
    watch.see_candidate(Candidate(0, 0.8, 100))
    watch.see_candidate(Candidate(2, 0.73, 100))  # two standard errors are 0.08
    assert told == []
    watch.see_candidate(Candidate(4, 0.71, 100))
    assert told == ["iteration 4: selection success 0.710 is below the 0.800 that training began with"]


def test_dead_codes_are_named() -> None:
    watch, told = make_watch()
    rates = (0.9, 0.9, 0.9, 0.9)
    watch.see_candidate(Candidate(0, 0.8, 100, rates, (1.0, 0.26, 1.0, 1.0)))
    assert told == []
    for iteration in (2, 4):
        watch.see_candidate(Candidate(iteration, 0.9, 100, rates, (1.0, 0.25, 1.0, 0.0)))
    assert len(told) == 1
    assert told[0].startswith("iteration 2: obeyed no more often than by chance: code 1, code 3; ")


def test_what_is_kept_is_compared_with_the_start_and_the_base_policy() -> None:
    watch, told = make_watch()
    watch.see_kept(Candidate(3, 0.75, 100), 0.8)
    assert told == []
    watch.see_kept(Candidate(0, 0.6, 100), 0.8)
    assert len(told) == 2
    assert "no iteration was better than the start" in told[0]
    assert "the kept iteration 0 succeeds less often (0.600) than the base policy (0.800)" in told[1]


def test_codes_that_miss_the_demand_are_named_with_how_often_they_are_obeyed() -> None:
    kept = Candidate(3, 0.75, 100, (0.9, 0.9, 0.9), (1.0, 0.912, 0.5))
    for demand, wanted in ((None, []), (0.5, []), (0.95, ["code 1 0.91, code 2 0.50"])):
        watch, told = make_watch()
        watch.see_kept(kept, None, demand)
        assert [text.partition("=0.95 asks for: ")[2] for text in told] == wanted


@pytest.mark.parametrize("cut", [False, True])
def test_a_resumed_watch_knows_what_it_has_seen(cut: bool) -> None:
    watch, told = make_watch()
    watch.see_candidate(Candidate(0, 0.8, 100))
    watch.see_candidate(Candidate(2, 0.2, 100))
    watch.see_metrics(2, metrics(6.0))
    if cut:
        state = json.loads(json.dumps(watch.state()))
        watch, more = make_watch()
        watch.load_state(state)
    else:
        more = []
    watch.see_candidate(Candidate(4, 0.1, 100))
    watch.see_metrics(4, metrics(-3.0))
    assert [text.split(":")[0] for text in told + more] == ["iteration 2", "iteration 4"]
