"""What is learnt from episodes whose behaviour is known."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmd_pipeline.config.schema import InferenceConfig
from bmd_pipeline.modes import inference
from bmd_pipeline.modes.inference import InferenceModel, draw_balanced, fit_inference


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 50), st.integers(0, 1000))
def test_batches_hold_rows_of_codes_that_occur(code: list[int], batch_size: int, seed: int) -> None:
    batches = list(draw_balanced(torch.tensor(code), batch_size, 3, torch.Generator().manual_seed(seed)))
    assert [len(rows) for rows in batches] == [batch_size] * 3
    assert all(0 <= int(row) < len(code) for rows in batches for row in rows)


def test_every_code_is_as_likely_however_rare_and_so_is_every_row_of_it() -> None:
    code = torch.tensor([5] * 2 + [0] * 20 + [2] * 6 + [0] * 20)
    [rows] = draw_balanced(code, 60_000, 1, torch.Generator().manual_seed(0))
    count = torch.bincount(rows, minlength=len(code)).float()
    for value, members in ((0, 40), (2, 6), (5, 2)):
        expected = torch.full((members,), 20_000 / members)
        noise = float(5.0 * (20_000 / members) ** 0.5)
        torch.testing.assert_close(count[code == value], expected, rtol=0, atol=noise)


def test_batches_differ_and_follow_the_generator() -> None:
    code = torch.arange(100) % 3
    first, second, third = (list(draw_balanced(code, 50, 2, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], third[0])


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_the_inference_model_tells_behaviours_apart_without_a_bias_to_the_frequent(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two overlapping behaviours: q(z|h) is what equal numbers of both would say, whatever there was of each."""
    monkeypatch.setattr(inference, "LEARNING_RATE", 1e-2)
    generator = torch.Generator().manual_seed(0)
    code = (torch.rand(4000, generator=generator) < share).long()
    histories = 2.0 * code[:, None] - 1.0 + torch.randn(4000, 1, generator=generator)
    torch.manual_seed(0)
    settings = InferenceConfig(hidden_sizes=(16,), fit_steps=400, input_noise=0.0)
    model = InferenceModel(1, 2, settings)
    fit_inference(model, histories, code, torch.Generator().manual_seed(1))
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    exact = torch.sigmoid(2.0 * x[:, 0])  # p(z = 1 | x) of N(±1, 1) in equal numbers
    torch.testing.assert_close(model.log_prob(x)[:, 1].exp().detach(), exact, rtol=0, atol=0.12)
