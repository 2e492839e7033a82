"""λ of each code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from bmd_pipeline.modes.regulariser import INTEGRAL, MAX_WEIGHT, PRIOR, PROPORTIONAL, Regulariser


def _see(regulariser: Regulariser, shares: list[float], *, episodes: int = 200) -> list[float]:
    """Shows it a rollout in which all succeed and each code is obeyed at a given share; returns λ."""
    code = torch.arange(len(shares)).repeat_interleave(episodes)
    own = torch.cat([torch.arange(episodes) < round(share * episodes) for share in shares])
    regulariser.update(own, torch.ones_like(own), code)
    return regulariser.weights.tolist()


def test_a_constant_stays() -> None:
    assert _see(Regulariser(2, 0.5), [0.0, 1.0]) == [0.5, 0.5]


def test_only_the_code_that_is_obeyed_too_seldom_gets_a_multiplier() -> None:
    regulariser = Regulariser(2, 0.5, demand=0.9)
    first = _see(regulariser, [0.8, 1.0])
    violation = 0.9 - (160.0 + PRIOR * 0.9) / (200.0 + PRIOR)
    assert first == pytest.approx([(PROPORTIONAL + INTEGRAL) * violation, 0.0], rel=1e-4)
    second = _see(regulariser, [0.8, 1.0])
    assert second[0] > first[0]  # it adds up
    assert second[1] == 0.0


def test_a_code_without_successes_has_violated_nothing() -> None:
    regulariser = Regulariser(2, 0.5, demand=0.9)
    regulariser.update(torch.zeros(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool), torch.arange(8) % 2)
    assert regulariser.weights.tolist() == [0.0, 0.0]


def test_no_demand_takes_more_than_the_bound_and_a_met_one_lets_go_at_once() -> None:
    """What could not be answered is not remembered: the integral has not wound up."""
    regulariser = Regulariser(1, 0.5, demand=0.95)
    assert all(_see(regulariser, [0.1]) == [MAX_WEIGHT] for _ in range(50))
    weights = [_see(regulariser, [1.0])[0] for _ in range(60)]
    assert weights[15] < 0.4 * MAX_WEIGHT  # by then the memory holds little of what went before
    assert weights[-1] == 0.0


def test_a_growing_violation_is_answered_before_it_is_large() -> None:
    slow, fast = Regulariser(1, 0.5, demand=0.9), Regulariser(1, 0.5, demand=0.9)
    for _ in range(30):
        _see(slow, [0.85])
        _see(fast, [0.95])
    steady, falling = _see(slow, [0.85])[0], [_see(fast, [share])[0] for share in (0.8, 0.6, 0.4)]
    assert falling[-1] > falling[0] > 0.0
    assert falling[-1] > steady


@pytest.mark.parametrize("pays", [0.5, 1.0])
def test_it_settles_where_the_demand_is_met(pays: float) -> None:
    """In a loop: something pays a code for leaving its behaviour, λ draws it back, as gradients of both would."""
    rng = np.random.default_rng(0)
    regulariser = Regulariser(1, 0.0, demand=0.9)
    logit, shares, weights = 3.0, [], []
    for _ in range(300):
        weight = float(regulariser.weights[0])
        share = 1.0 / (1.0 + math.exp(-logit))
        logit += 0.3 * (weight * (1.0 - share) * 10.0 - pays) / (1.0 + weight)
        own = torch.from_numpy(rng.random(256) < share)
        regulariser.update(own, torch.ones_like(own), torch.zeros(256, dtype=torch.int64))
        shares.append(share)
        weights.append(weight)
    assert np.mean(shares[150:]) == pytest.approx(0.9, abs=0.03)
    assert np.std(shares[150:]) < 0.05
    assert 0.0 < np.mean(weights[150:]) < MAX_WEIGHT


@pytest.mark.parametrize("demand", [None, 0.9])
def test_state_survives_a_checkpoint(demand: float | None) -> None:
    whole = Regulariser(2, 0.5, demand)
    sequence = [[1.0 - 0.1 * step, 0.2 + 0.1 * step] for step in range(8)]
    for shares in sequence[:4]:
        _see(whole, shares)
    resumed = Regulariser(2, 0.5, demand)
    resumed.load_state(json.loads(json.dumps(whole.state())))
    for shares in sequence[4:]:
        assert _see(whole, shares) == _see(resumed, shares)
    assert resumed.state() == whole.state()
