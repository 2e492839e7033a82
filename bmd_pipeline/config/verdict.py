"""Settings of the verdict: what is claimed, decided before the results are seen."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section


class VerdictConfig(Section):
    """Thresholds of the hypotheses H1 to H3; the success rate τ of a solved mode is `evaluate.tau`."""

    success_margin: float = Field(0.02, ge=0.0, lt=1.0)
    """H1: success may be lower than with plain fine-tuning by this much."""
    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    """Probability of calling any hypothesis of the file supported (or any refuted) that isn't."""
    power: float = Field(0.8, ge=0.5, lt=1.0)
    """Probability with which a recommended sample size decides."""
