"""Signs of instability, from made-up logs."""

from __future__ import annotations

import numpy as np
import pytest

from bmd_pipeline.metrics.stability import INDICATORS, measure_stability


def log(**columns: list[float]) -> list[dict[str, float]]:
    names = {
        "kl": "losses/approx_kl",
        "share": "losses/kl_share",
        "entropy": "losses/entropy",
        "steps": "losses/policy_steps",
        "stopped": "losses/kl_stopped",
        "ret": "rollout/episode_return",
    }
    rows = zip(*columns.values(), strict=True)
    return [{names[name]: value for name, value in zip(columns, row, strict=True)} for row in rows]


def test_kl_is_read_as_a_share_of_its_target() -> None:
    lines = log(kl=[0.5, 1.6, 2.5, 0.5], share=[0.5, 1.6, 2.5, 6.0], stopped=[0.0, 1.0, 1.0, 1.0])
    found = measure_stability(lines)
    assert set(found) == set(INDICATORS)
    assert found["kl_peak"] == 2.5
    assert found["early_stops"] == 0.75
    assert found["kl_spikes"] == 0.25  # twice the limit of 1.5


def test_changes_compare_the_ends_of_the_run() -> None:
    entropy = [2.0] * 5 + [1.0] * 40 + [-3.0] * 5
    assert measure_stability(log(entropy=entropy))["entropy_change"] == -5.0


def test_iterations_of_the_critic_alone_have_no_entropy() -> None:
    """As `value_warmup` logs them, and an update that stops at its first step."""
    entropy, steps = [0.0] * 10 + [2.0] * 20 + [0.0] + [-1.0] * 20, [0.0] * 10 + [8.0] * 20 + [0.0] + [8.0] * 20
    assert measure_stability(log(entropy=entropy, steps=steps))["entropy_change"] == -3.0
    assert measure_stability(log(entropy=[0.0] * 4, steps=[0.0] * 4))["entropy_change"] == 0.0


def test_a_trend_is_no_variance_and_noise_is() -> None:
    trend = list(np.linspace(0, 1, 101))
    assert measure_stability(log(ret=trend))["return_variance"] == pytest.approx(0.5e-4)
    noise = np.random.default_rng(0).normal(0, 0.3, 4000)
    found = measure_stability(log(ret=list(noise + np.linspace(0, 5, 4000))))
    assert found["return_variance"] == pytest.approx(0.09, rel=0.1)


def test_what_a_run_does_not_report_is_zero() -> None:
    found = measure_stability([{"losses/approx_kl": None}])
    assert set(found.values()) == {0.0}
    assert measure_stability([{"modes/mi_weight": 0.1}, {"modes/mi_weight": 0.3}])["final_weight"] == 0.3
