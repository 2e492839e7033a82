"""The steering policy."""

from __future__ import annotations

import torch

from bmd_pipeline.config.schema import SteeringConfig
from bmd_pipeline.modes.steering import NoiseBasis, SteeringPolicy


def _steering(num_codes: int) -> SteeringPolicy:
    torch.manual_seed(0)
    return SteeringPolicy(3, num_codes, NoiseBasis(4, 2), SteeringConfig(hidden_sizes=(16,)))


def test_starts_as_the_prior() -> None:
    mean, log_std = _steering(4)(torch.randn(64, 3), torch.arange(64) % 4)
    assert float(mean.detach().abs().max()) < 0.05
    torch.testing.assert_close(log_std.exp(), torch.ones_like(log_std), rtol=0.05, atol=0.0)


def test_mean_stays_within_what_the_policy_was_trained_on() -> None:
    steering = _steering(4)
    with torch.no_grad():
        for parameter in steering.parameters():
            parameter.mul_(1000.0)
        mean, log_std = steering(torch.randn(64, 3), torch.arange(64) % 4)
    assert float(mean.abs().max()) <= 2.0
    assert float(log_std.min()) >= -4.0
    assert float(log_std.max()) <= 1.0


def test_sees_the_code_only_if_there_is_one() -> None:
    cond = torch.randn(8, 3)
    first, second = torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)
    coded, plain = _steering(2), _steering(1)
    assert not torch.equal(coded(cond, first)[0], coded(cond, second)[0])
    assert torch.equal(plain(cond, first)[0], plain(cond, second)[0])
