"""Noise with a memory, for demonstrators that are blown off their way.

A demonstrator executes noisy actions but records what it meant to do. So demonstrations show how to come back from
beside the way, which is what a cloned policy has to know to stay on it.

Source: injecting noise into the demonstrator as in DART (arXiv 1703.09327).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PERSISTENCE = 0.7
"""Autocorrelation of the noise from one step to the next."""


def draw_noise(std: float, shape: tuple[int, int], draw: np.random.Generator) -> NDArray[np.float64]:
    """Noise of shape (steps, dim): a first-order autoregression that starts at 0 and approaches `std`."""
    shocks = std * math.sqrt(1.0 - PERSISTENCE**2) * draw.standard_normal(shape)
    noise = np.zeros(shape)
    gust = np.zeros(shape[1])
    for step in range(shape[0]):
        gust = PERSISTENCE * gust + shocks[step]
        noise[step] = gust
    return noise
