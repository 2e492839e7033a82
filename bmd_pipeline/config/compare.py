"""Settings of the comparison of methods."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section


class CompareConfig(Section):
    """How the evaluations of several methods and seeds are compared."""

    resamples: int = Field(5000, ge=200, le=100_000)
    """Bootstrap resamples; no bootstrap p-value can fall below 1 / (resamples + 1)."""
    min_seeds: int = Field(5, ge=2, le=100)
    """Seeds from which a test over seeds is preferred to one over episodes, if it can decide anything."""
