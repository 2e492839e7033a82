"""The noise basis is an orthonormal cosine transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dct

from bmd_pipeline.modes.steering import NoiseBasis


@pytest.mark.parametrize("components", [1, 3, 8, 0])
def test_rows_are_orthonormal(components: int) -> None:
    basis = NoiseBasis(8, 2, components)
    assert basis.dim == 2 * (components or 8)
    torch.testing.assert_close(basis.rows @ basis.rows.T, torch.eye(basis.dim))


def test_coordinates_match_scipy() -> None:
    noise = torch.randn(5, 8, 2, generator=torch.Generator().manual_seed(0))
    ours = NoiseBasis(8, 2).project(noise.flatten(1)).view(5, 8, 2)
    np.testing.assert_allclose(ours.numpy(), dct(noise.numpy(), type=2, norm="ortho", axis=1), atol=1e-5)


def test_first_component_moves_every_action_alike() -> None:
    lifted = NoiseBasis(8, 2, 1).lift(torch.tensor([[1.0, -2.0]])).view(8, 2)
    torch.testing.assert_close(lifted, lifted[:1].expand(8, 2))


@pytest.mark.parametrize("components", [2, 0])
def test_complete_sets_coordinates_and_leaves_the_rest(components: int) -> None:
    basis = NoiseBasis(8, 2, components)
    generator = torch.Generator().manual_seed(1)
    u, rest = torch.randn(4, basis.dim, generator=generator), torch.randn(4, 16, generator=generator)
    noise = basis.complete(u, rest)
    torch.testing.assert_close(basis.project(noise), u)
    residue = rest - basis.lift(basis.project(rest))
    torch.testing.assert_close(
        noise - basis.lift(u), residue if basis.dim < 16 else torch.zeros(4, 16), atol=1e-5, rtol=0
    )
