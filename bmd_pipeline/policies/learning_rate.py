"""Learning-rate schedule of behaviour cloning."""

from __future__ import annotations

import math


def cosine_learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero.

    Args:
        step: gradient steps taken so far.
        peak: highest learning rate.
        warmup: steps of the warm-up; cut to `total`.
        total: steps of the whole training.
    """
    warmup = min(warmup, total)
    if step < warmup:
        return peak * ((step + 1) / warmup)
    progress = (step - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
