import pytest
import torch
from torch import nn

from bmd_pipeline.errors import ConfigError
from bmd_pipeline.policies.networks import Denoiser, make_activation, make_mlp, time_features


@pytest.mark.parametrize("activation", ["silu", "relu", "mish", "tanh"])
def test_mlp_is_linear_layers_with_activations_between(activation: str) -> None:
    mlp = make_mlp([3, 5, 4, 2], activation)
    layers = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    x = torch.randn(6, 3)
    expected = x
    for i, layer in enumerate(layers):
        expected = expected @ layer.weight.T + layer.bias
        if i < len(layers) - 1:
            expected = make_activation(activation)(expected)
    torch.testing.assert_close(mlp(x), expected)
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(3, 5), (5, 4), (4, 2)]


def test_unknown_activation() -> None:
    with pytest.raises(ConfigError, match="silu, relu, mish, tanh, got 'gelu'"):
        make_activation("gelu")


@pytest.mark.parametrize("hidden", [(7,), (8, 6, 5)])
def test_folding_changes_nothing(hidden: tuple[int, ...]) -> None:
    """The three-part first layer equals one matrix over the concatenated input."""
    denoiser = Denoiser(4, 3, hidden, "silu", 10)
    x, cond = torch.randn(5, 4), torch.randn(5, 3)
    t = torch.tensor([0, 9, 3, 3, 7])
    folded = denoiser(x, denoiser.embed_cond(cond) + denoiser.embed_time()[t])
    plain = denoiser.rest(denoiser.first(torch.cat([x, cond, time_features(10)[t]], dim=1)))
    torch.testing.assert_close(folded, plain)


@pytest.mark.parametrize("steps", [1, 20, 1000])
def test_time_features_tell_steps_apart(steps: int) -> None:
    features = time_features(steps)
    assert features.shape[0] == steps
    assert features.abs().max() <= 1
    if steps > 1:
        assert torch.pdist(features).min() > 1e-3
