"""The inference model."""

from __future__ import annotations

import math

import pytest
import torch

from bmd_pipeline.config.schema import InferenceConfig
from bmd_pipeline.modes import inference
from bmd_pipeline.modes.inference import InferenceModel, train_inference


def test_histories_hold_strided_points_newest_first() -> None:
    model = InferenceModel(1, 2, InferenceConfig(history_steps=3, hidden_sizes=(4,)))
    features = torch.arange(6.0)[:, None, None]  # (T + 1, 1 episode, 1 feature), identifiable by time
    assert model.histories(features)[:, 0].tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [2, 0, 0],
        [3, 1, 0],
        [4, 2, 0],
        [5, 3, 1],
    ]


def test_scale_comes_from_valid_states_only() -> None:
    model = InferenceModel(2, 2, InferenceConfig(hidden_sizes=(4,)))
    features = torch.full((3, 2, 2), 1e6)
    valid = torch.zeros(3, 2, dtype=torch.bool)
    features[0], valid[0] = torch.tensor([[1.0, 10.0], [3.0, 30.0]]), True
    model.fit_scale(features, valid)
    assert model.mean.tolist() == [2.0, 20.0]
    torch.testing.assert_close(model.normalise(features[0]).mean(dim=0), torch.zeros(2))


def test_a_shared_scale_keeps_what_hardly_varies_small() -> None:
    model = InferenceModel(2, 2, InferenceConfig(hidden_sizes=(4,), scale="shared"))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, 2, generator=generator) * torch.tensor([1.0, 0.01])
    model.fit_scale(features, torch.ones(200, 5, dtype=torch.bool))
    spread = model.normalise(features).flatten(0, 1).std(dim=0)
    torch.testing.assert_close(spread.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(spread[1] / spread[0], torch.tensor(0.01), rtol=0.2, atol=0.0)


def test_learns_codes_that_the_features_tell_and_only_those(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BATCH_SIZE", 256)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    code = torch.arange(512) % 4
    told = code.float()[:, None] - 1.5 + 0.1 * torch.randn(512, 1, generator=generator)
    untold = torch.randn(512, 1, generator=generator)
    reached = []
    for features in (told, untold):
        model = InferenceModel(1, 4, InferenceConfig(hidden_sizes=(32,)))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        train_inference(model, optimizer, features, code, 150, generator)
        log_q = model.log_prob(features)
        torch.testing.assert_close(log_q.exp().sum(dim=-1), torch.ones(512))
        reached.append(float(log_q.detach().gather(1, code[:, None]).mean()) + math.log(4))
    assert reached[0] > 1.2  # of at most ln 4 = 1.386
    assert reached[1] < 0.15


def test_no_steps_change_nothing() -> None:
    model = InferenceModel(1, 2, InferenceConfig(hidden_sizes=(4,)))
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.Adam(model.parameters())
    train_inference(model, optimizer, torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), 0, torch.Generator())
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_calibration_makes_the_model_as_sure_as_it_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    model = InferenceModel(1, 2, InferenceConfig(hidden_sizes=(4,)))
    code = torch.arange(2000) % 2
    obeyed = torch.rand(2000, generator=generator) < 0.8
    shown = torch.where(obeyed, code, 1 - code).float()[:, None] * 2 - 1
    model.network = torch.nn.Linear(1, 2)
    with torch.no_grad():
        model.network.weight.copy_(torch.tensor([[-20.0], [20.0]]))
        model.network.bias.zero_()
    before = model.log_prob(shown).detach()
    model.calibrate(shown, code)
    after = model.log_prob(shown)
    assert torch.equal(before.argmax(dim=1), after.argmax(dim=1))
    after = after.detach()
    assert abs(float(after.max(dim=1).values.exp().mean()) - 0.8) < 0.05
    assert float(before.gather(1, code[:, None]).mean()) < -math.log(2) < float(after.gather(1, code[:, None]).mean())
