import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmd_pipeline.policies.networks import Normaliser


@given(
    rows=st.integers(10, 50),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e2, 1e2),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50)
def test_standardises_and_comes_back(rows: int, scale: float, shift: float, seed: int) -> None:
    values = shift + scale * torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    normaliser = Normaliser(3)
    normaliser.fit(values)
    normalised = normaliser(values)
    # float32 keeps about 7 digits of a value, so a small spread on a large shift keeps fewer
    slack = 1e-4 + 1e-5 * abs(shift) / scale
    torch.testing.assert_close(normalised.mean(0), torch.zeros(3), atol=slack, rtol=0)
    torch.testing.assert_close(normalised.std(0, correction=0), torch.ones(3), atol=slack, rtol=0)
    torch.testing.assert_close(normaliser.inverse(normalised), values, rtol=1e-5, atol=1e-5 * (abs(shift) + scale))


def test_a_constant_dimension_is_only_centred() -> None:
    normaliser = Normaliser(2)
    normaliser.fit(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    assert normaliser.std.tolist() == [1.0, 0.5]
    assert normaliser(torch.tensor([3.1, 1.0]))[0].item() - 0.1 < 1e-6


def test_scales_are_part_of_the_checkpoint() -> None:
    normaliser = Normaliser(2)
    normaliser.fit(torch.randn(10, 2))
    other = Normaliser(2)
    other.load_state_dict(normaliser.state_dict())
    assert torch.equal(other.mean, normaliser.mean)
    assert torch.equal(other.std, normaliser.std)
