import copy

import torch
from torch import nn

from bmd_pipeline.policies.networks import EMA


def test_follows_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.9)
    expected = model.weight.detach().clone()
    for n in range(200):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=generator))
        ema.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(ema.average.weight, expected, rtol=1e-4, atol=1e-5)


def test_average_is_a_network_of_its_own() -> None:
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.99)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(ema.average.weight, before["weight"])
    ema.update()
    assert not torch.equal(ema.average.weight, before["weight"])
    assert not ema.average.weight.requires_grad
    assert model.weight.requires_grad


def test_no_decay_is_a_copy() -> None:
    model = nn.Linear(3, 2)
    ema = EMA(model, 0.0)
    with torch.no_grad():
        model.weight.add_(1)
    ema.update()
    torch.testing.assert_close(ema.average.weight, model.weight)
