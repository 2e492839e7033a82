"""Controllers of λ."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from bmd_pipeline.config.schema import RegulariserConfig
from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.modes import regulariser
from bmd_pipeline.modes.regulariser import LOST_TOLERANCE, Controller, Measurement, make_controller

FINDINGS = {"occupancy": [0.4, 0.4, 0.2]}


def _controller(**settings: object) -> Controller:
    return make_controller(RegulariserConfig.model_validate({"mi_weight": 0.5} | settings), FINDINGS)


def _feed(controller: Controller, count: int, measured: Measurement) -> float:
    for _ in range(count):
        controller.update(measured)
    return controller.weight


def _seen(success: float = 0.9, occupancy: tuple[float, ...] = (0.4, 0.4, 0.2)) -> Measurement:
    return Measurement(success, 768, torch.tensor(occupancy))


def test_constant_stays() -> None:
    assert _feed(_controller(), 5, _seen(success=0.0)) == 0.5


def test_occupancy_raises_lambda_when_a_behaviour_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = _seen(occupancy=(0.6, 0.4, 0.0))
    assert _feed(_controller(controller="occupancy"), 10, lost) > 0.5
    assert _feed(_controller(controller="occupancy"), 10, _seen()) < 0.5  # nothing is lost: less will do
    assert _feed(_controller(controller="occupancy"), 500, _seen()) == 0.1
    assert _feed(_controller(controller="occupancy"), 500, lost) == 2.0
    monkeypatch.setattr(regulariser, "LOST_TOLERANCE", 0.25)
    assert _feed(_controller(controller="occupancy"), 10, lost) < 0.5


def test_occupancy_steps_by_the_share_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulariser, "STEP", 2.0)  # or λ would be at its bound before the means have come to rest
    monkeypatch.setattr(regulariser, "MIN_WEIGHT", 1e-6)
    monkeypatch.setattr(regulariser, "MAX_WEIGHT", 1000.0)
    controller = _controller(controller="occupancy", mi_weight=1e-5)
    _feed(controller, 40, _seen(occupancy=(0.7, 0.3, 0.0)))  # the running means have come to rest
    before = controller.weight
    after = _feed(controller, 1, _seen(occupancy=(0.7, 0.3, 0.0)))
    missing = ((0.8 * 0.4 - 0.3) + 0.8 * 0.2) / 0.8
    assert math.log(after / before) == pytest.approx(2.0 * (missing - LOST_TOLERANCE), rel=1e-4)


def test_occupancy_gives_success_priority() -> None:
    controller = _controller(controller="occupancy")
    _feed(controller, 5, _seen(success=0.9))
    assert _feed(controller, 10, _seen(success=0.2, occupancy=(1.0, 0.0, 0.0))) < 0.5


def _play(rng: np.random.Generator, success: float, shares: tuple[float, ...], episodes: int = 32) -> Measurement:
    """A rollout of a few episodes whose true success and shares of behaviours are given."""
    count = max(1, int(rng.binomial(episodes, success)))
    occupancy = rng.multinomial(count, shares) / count
    return Measurement(count / episodes, episodes, torch.tensor(occupancy, dtype=torch.float32))


@pytest.mark.parametrize("seed", range(5))
def test_occupancy_takes_no_noise_for_a_loss(seed: int) -> None:
    """Rollouts of 32 episodes scatter by .08: nothing happens here."""
    rng = np.random.default_rng(seed)
    controller = _controller(controller="occupancy")
    for _ in range(200):
        controller.update(_play(rng, 0.7, (0.4, 0.4, 0.2)))
    assert controller.weight < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_occupancy_takes_no_noise_for_a_fall(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulariser, "LOST_TOLERANCE", 0.0)  # only a fall of success lowers λ
    rng = np.random.default_rng(seed)
    controller = _controller(controller="occupancy")
    for _ in range(200):
        before = controller.weight
        controller.update(_play(rng, 0.7, (0.4, 0.4, 0.2)))
        assert controller.weight >= before


@pytest.mark.parametrize("seed", range(5))
def test_occupancy_sees_a_slow_loss_through_noise(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulariser, "MAX_WEIGHT", 10.0)
    rng = np.random.default_rng(seed)
    controller = _controller(controller="occupancy")
    for iteration in range(80):  # success rises all the while, as under a reward that prefers the first
        lost = 0.4 * iteration / 80
        controller.update(_play(rng, 0.6 + 0.3 * iteration / 80, (0.4 + lost, 0.4 - lost, 0.2)))
    assert controller.weight > 2.0


@pytest.mark.parametrize("seed", range(5))
def test_occupancy_sees_success_break_through_noise(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regulariser, "MAX_WEIGHT", 10.0)
    rng = np.random.default_rng(seed)
    controller = _controller(controller="occupancy")
    for iteration in range(120):
        controller.update(_play(rng, 0.8 if iteration < 60 else 0.4, (0.8, 0.0, 0.2)))
    assert controller.weight < 5.0  # it had risen to 10


@pytest.mark.parametrize("start", [0.02, 0.5, 8.0])
def test_occupancy_settles_where_the_tolerance_is_met(start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a loop: one behaviour pays more and draws the others in, λ draws back, as gradients of both would."""
    monkeypatch.setattr(regulariser, "MAX_WEIGHT", 10.0)
    rng = np.random.default_rng(0)
    controller = _controller(controller="occupancy", mi_weight=start)
    origin = np.log((0.4, 0.4, 0.2))
    drift, lost, weights = np.zeros(3), [], []
    for pays in np.repeat((1.0, 0.0), 400):
        drift += 0.1 * (np.array((pays, 0.0, 0.0)) - controller.weight * drift)
        shares = np.exp(origin + drift) / np.exp(origin + drift).sum()
        controller.update(_play(rng, 0.9, tuple(shares), episodes=768))
        weights.append(controller.weight)
        lost.append(np.maximum(0.8 * np.exp(origin) - shares, 0.0).sum() / 0.8)
    assert np.mean(lost[200:400]) == pytest.approx(0.01, abs=0.005)
    assert 0.5 < np.median(weights[200:400]) < 9.0
    assert weights[-1] == 0.1  # nothing pays more any longer


def test_a_missing_occupancy_is_an_error() -> None:
    with pytest.raises(ArtifactError, match="coded form, and only if an episode succeeds"):
        make_controller(RegulariserConfig(controller="occupancy"), {})


@pytest.mark.parametrize("controller", ["constant", "occupancy"])
def test_state_survives_a_checkpoint(controller: str) -> None:
    whole = _controller(controller=controller)
    sequence = [_seen(success=1 - 0.1 * i, occupancy=(0.1 * i, 0.5, 0.1)) for i in range(8)]
    for measured in sequence[:4]:
        whole.update(measured)
    resumed = _controller(controller=controller)
    resumed.load_state(json.loads(json.dumps(whole.state())))
    for measured in sequence[4:]:
        whole.update(measured)
        resumed.update(measured)
    assert resumed.weight == whole.weight
    assert resumed.state() == whole.state()
