"""Settings of evaluation."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section


class EvaluateConfig(Section):
    """How policies are judged, on seeds that no training stage uses."""

    episodes: int = Field(1024, ge=8, le=1_000_000)
    """Episodes per policy and seed."""
    selection_episodes: int = Field(64, ge=8, le=1_000_000)
    """Episodes on selection seeds, which show what each code's own behaviour is; none for a policy without codes."""
    num_envs: int = Field(1024, ge=1, le=1_000_000)
    """Environments stepped together."""
    tau: float = Field(0.8, gt=0.0, le=1.0)
    """A present mode is solved when its success rate is at least τ."""
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    """Level of the reported intervals."""
    steering: bool = True
    """False leaves the steering policy out and starts from prior noise: has the rest taken the modes in?"""
    pictured_episodes: int = Field(96, ge=1, le=10_000)
    """Episodes drawn in the trajectory picture."""


class CurveConfig(Section):
    """How the snapshots of a fine-tuning run are judged."""

    episodes: int = Field(512, ge=8, le=1_000_000)
    """Episodes per snapshot."""
