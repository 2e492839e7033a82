import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bmd_pipeline.policies.networks import ACTIVATIONS, Denoiser, code_inputs, make_mlp, time_features
from tests.policies.plain import run_plainly


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_linear_layers_with_activations_between(activation: str) -> None:
    mlp = make_mlp([3, 5, 4, 2], activation)
    layers = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    x = torch.randn(6, 3)
    expected = x
    for i, layer in enumerate(layers):
        expected = expected @ layer.weight.T + layer.bias
        if i < len(layers) - 1:
            expected = ACTIVATIONS[activation]()(expected)
    torch.testing.assert_close(mlp(x), expected)
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(3, 5), (5, 4), (4, 2)]


def test_mlp_that_starts_by_answering_little() -> None:
    torch.manual_seed(0)
    usual = make_mlp([3, 5, 2], "silu")
    torch.manual_seed(0)
    quiet = make_mlp([3, 5, 2], "silu", last_scale=0.01)
    x = torch.randn(6, 3)
    torch.testing.assert_close(quiet(x), 0.01 * (usual(x) - usual[-1].bias))


def test_inputs_of_codes() -> None:
    codes = torch.tensor([1, 0, 2])
    assert code_inputs(codes, 3).tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert code_inputs(torch.zeros(3, dtype=torch.int64), 1).shape == (3, 0)


@pytest.mark.parametrize("hidden", [(7,), (8, 6, 5)])
def test_condition_and_time_enter_the_first_layer(hidden: tuple[int, ...]) -> None:
    denoiser = Denoiser(4, 3, hidden, "silu", 10)
    x, cond = torch.randn(5, 4), torch.randn(5, 3)
    t = torch.tensor([0, 9, 3, 3, 7])
    output = denoiser(x, denoiser.embed_cond(cond) + denoiser.embed_time()[t])
    inputs = torch.cat([x, cond, time_features(10)[t]], dim=1)
    torch.testing.assert_close(output, run_plainly(denoiser, inputs))


def make_coded(num_codes: int, hidden: tuple[int, ...] = (8, 6)) -> Denoiser:
    """A network whose tables hold random numbers."""
    torch.manual_seed(0)
    denoiser = Denoiser(4, 3, hidden, "silu", 10, num_codes)
    with torch.no_grad():
        for table in denoiser.code_tables:
            table.normal_()
    return denoiser


@pytest.mark.parametrize("hidden", [(7,), (8, 6, 5)])
def test_a_code_scales_and_shifts_every_hidden_layer(hidden: tuple[int, ...]) -> None:
    denoiser = make_coded(2, hidden)
    with torch.no_grad():
        for table in denoiser.code_tables:
            table[0] = 0.0
            scale, shift = table[1].chunk(2)
            scale.fill_(0.5)
            shift.fill_(-0.3)
    x, cond, t = torch.randn(5, 4), torch.randn(5, 3), torch.tensor([0, 9, 3, 3, 7])
    context = denoiser.embed_cond(cond) + denoiser.embed_time()[t]
    inputs = torch.cat([x, cond, time_features(10)[t]], dim=1)
    code = torch.tensor([0, 1, 1, 0, 1])
    told = denoiser(x, context, denoiser.embed_code(code))
    expected = run_plainly(denoiser, inputs, 1.5, -0.3)
    torch.testing.assert_close(told[code == 1], expected[code == 1])
    assert torch.equal(told[code == 0], denoiser(x, context)[code == 0])


@given(st.integers(1, 5), st.floats(0.1, 5.0), st.floats(0.1, 5.0))
@settings(max_examples=25)
def test_stretching_keeps_the_mean_of_codes_and_scales_what_tells_them_apart(
    num_codes: int, factor: float, again: float
) -> None:
    plain, once, twice = (make_coded(num_codes) for _ in range(3))
    once.stretch_codes(factor)
    twice.stretch_codes(factor)
    twice.stretch_codes(again)
    tables = (plain.code_tables, once.code_tables, twice.code_tables)
    for before, after, end in zip(*(map(torch.detach, each) for each in tables), strict=True):
        mean = before.mean(dim=0)
        torch.testing.assert_close(after.mean(dim=0), mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(after - mean, factor * (before - mean), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(end - mean, factor * again * (before - mean), rtol=1e-3, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(plain.first.parameters(), once.first.parameters(), strict=True))


@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_time_features_tell_steps_apart(steps: int) -> None:
    features = time_features(steps)
    assert features.shape[0] == steps
    assert features.abs().max() <= 1
    if steps > 1:
        assert torch.pdist(features).min() > 1e-3
