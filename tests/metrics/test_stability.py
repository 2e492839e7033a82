"""Signs of instability, from made-up logs."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.stability import INDICATORS, measure_stability


def log(**columns: list[float]) -> list[dict[str, float]]:
    names = {
        "kl": "losses/approx_kl",
        "entropy": "losses/entropy",
        "steps": "losses/policy_steps",
        "stopped": "losses/kl_stopped",
        "ret": "rollout/episode_return",
    }
    rows = zip(*columns.values(), strict=True)
    return [{names[name]: value for name, value in zip(columns, row, strict=True)} for row in rows]


def test_kl_is_read_against_the_limit_of_early_stops() -> None:
    found = measure_stability(log(kl=[0.01, 0.031, 0.05, 0.07]), target_kl=0.02)
    assert set(found) == set(INDICATORS)
    assert found["kl_peak"] == 0.07
    assert found["early_stops"] == 0.75  # above .03
    assert found["kl_spikes"] == 0.25  # above .06


def test_changes_compare_the_ends_of_the_run() -> None:
    entropy = [2.0] * 5 + [1.0] * 40 + [-3.0] * 5
    assert measure_stability(log(entropy=entropy), 0.02)["entropy_change"] == -5.0


def test_iterations_of_the_critic_alone_have_no_entropy() -> None:
    """As `value_warmup` logs them, and an update that stops at its first step."""
    entropy, steps = [0.0] * 10 + [2.0] * 20 + [0.0] + [-1.0] * 20, [0.0] * 10 + [8.0] * 20 + [0.0] + [8.0] * 20
    assert measure_stability(log(entropy=entropy, steps=steps), 0.02)["entropy_change"] == -3.0
    assert measure_stability(log(entropy=[0.0] * 4, steps=[0.0] * 4), 0.02)["entropy_change"] == 0.0


def test_stops_are_those_that_the_run_reports() -> None:
    kl = [0.05, 0.05, 0.01, 0.01]
    assert measure_stability(log(kl=kl, stopped=[0.0, 1.0, 0.0, 0.0]), 0.02)["early_stops"] == 0.25
    lines = log(kl=kl, stopped=[0.0, 1.0, 1.0, 0.0])
    del lines[0]["losses/kl_stopped"]  # a run that went on after an update of the programme
    assert measure_stability(lines, 0.02)["early_stops"] == 0.75


def test_a_trend_is_no_variance_and_noise_is() -> None:
    trend = list(np.linspace(0, 1, 101))
    assert measure_stability(log(ret=trend), 0.02)["return_variance"] == pytest.approx(0.5e-4)
    noise = np.random.default_rng(0).normal(0, 0.3, 4000)
    found = measure_stability(log(ret=list(noise + np.linspace(0, 5, 4000))), 0.02)
    assert found["return_variance"] == pytest.approx(0.09, rel=0.1)


def test_what_a_run_does_not_report_is_zero() -> None:
    found = measure_stability([{"losses/approx_kl": None}], 0.02)
    assert set(found.values()) == {0.0}
    assert measure_stability([{"modes/mi_weight": 0.1}, {"modes/mi_weight": 0.3}], 0.02)["final_weight"] == 0.3
