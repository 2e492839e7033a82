import json
import math

import pytest
import torch

from bmd_pipeline.config.schema import PolicyConfig, PretrainConfig
from bmd_pipeline.errors import TrainingError
from bmd_pipeline.policies import bc
from bmd_pipeline.policies.bc import Cloner
from bmd_pipeline.policies.diffusion import DiffusionPolicy

SHAPE = PolicyConfig(horizon=2, n_action_steps=1, n_obs_steps=1, hidden_sizes=(32, 32), ddim_steps=20)


def make_cloner(**settings: object) -> Cloner:
    """Two modes: both actions of a chunk are +.5, or both are -.5, whatever the observation."""
    config = PretrainConfig(policy=SHAPE, batch_size=128, **{"iterations": 800, "learning_rate": 5e-3, **settings})
    torch.manual_seed(0)
    stacked = torch.randn(512, 1)
    coin = torch.randint(0, 2, (512, 1)) * 2 - 1
    chunk = (0.5 * coin).expand(-1, 2)
    policy = DiffusionPolicy(SHAPE, 1, 1)
    policy.fit_normalisers(chunk, stacked)
    return Cloner(policy, config, chunk, stacked, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_learns_both_modes(precision: str) -> None:
    cloner = make_cloner(precision=precision)
    while cloner.step < cloner.config.iterations:
        cloner.train_step()
    policy = cloner.ema.average
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(2))
    action = policy.to_action(policy.sample(noise, policy.encode(torch.randn(500, 1))))[..., 0]
    assert ((action.abs() - 0.5).abs() < 0.15).float().mean() > 0.85  # on a mode
    assert (action[:, 0].sign() == action[:, 1].sign()).float().mean() > 0.95  # one mode per chunk
    assert 0.3 < (action[:, 0] > 0).float().mean() < 0.7  # both of them


def test_bfloat16_rounds_products_and_leaves_weights_as_they_are() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        cloner = make_cloner(precision=precision)
        cloner.train_step()
        assert {weight.dtype for weight in cloner.policy.parameters()} == {torch.float32}
        losses[precision] = cloner.take_mean_loss()
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)


def test_validation_uses_the_average_and_repeats() -> None:
    cloner = make_cloner()
    for _ in range(20):
        cloner.train_step()
    chunk, stacked = torch.full((40, 2), 0.5), torch.randn(40, 1)
    first, second = (cloner.validate(chunk, stacked, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first == second > 0
    with torch.no_grad():
        for parameter in cloner.policy.parameters():
            parameter.zero_()
    assert cloner.validate(chunk, stacked, torch.Generator().manual_seed(0)) == first


def test_validation_looks_at_a_bounded_number_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced: here every third one."""
    cloner = make_cloner()
    chunk, stacked = torch.full((40, 2), 0.5), torch.randn(40, 1)
    expected = cloner.validate(chunk[::3], stacked[::3], torch.Generator().manual_seed(0))
    assert cloner.validate(chunk, stacked, torch.Generator().manual_seed(0)) != expected
    monkeypatch.setattr(bc, "VALIDATION_WINDOWS", 15)
    assert cloner.validate(chunk, stacked, torch.Generator().manual_seed(0)) == expected


def test_goes_on_bit_for_bit() -> None:
    straight, interrupted, resumed = make_cloner(), make_cloner(), make_cloner()
    for _ in range(30):
        straight.train_step()
    for _ in range(13):
        interrupted.train_step()
    tensors, values = interrupted.state()
    resumed.restore({k: t.clone() for k, t in tensors.items()}, json.loads(json.dumps(values)))
    for _ in range(17):
        resumed.train_step()
    assert resumed.step == straight.step == 30
    assert resumed.take_mean_loss() == straight.take_mean_loss()
    for one, other in (
        (straight.policy, resumed.policy),
        (straight.ema.average, resumed.ema.average),
    ):
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_mean_loss_starts_over_after_it_is_taken() -> None:
    cloner = make_cloner()
    cloner.train_step()
    first = cloner.take_mean_loss()
    assert math.isfinite(first)
    assert first > 0
    assert cloner.take_mean_loss() == 0.0


def test_divergence_is_reported_with_the_remedy() -> None:
    cloner = make_cloner()
    with torch.no_grad():
        next(cloner.policy.parameters()).fill_(math.nan)
    cloner.train_step()
    with pytest.raises(
        TrainingError, match=r"loss is nan after 1 iterations; lower pretrain.learning_rate \(now 0.005\)"
    ):
        cloner.take_mean_loss()
