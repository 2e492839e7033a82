"""The `env` settings of GaussianMixture."""

from typing import Literal

from pydantic import Field

from bmd_pipeline.config.schema import Section


class Options(Section):
    """Settings of the point task."""

    horizon: int = Field(24, ge=1, le=10_000)
    """Time limit in control steps."""
    reward: Literal["equal", "shifted"] = "equal"
    """equal (G1): every goal pays 1. shifted (G2): the favoured goal pays double."""
    favoured_goal: int = Field(0, ge=0, le=3)
    """The goal that pays double under `shifted`."""
    start_std: float = Field(0.05, ge=0.0, le=0.5)
    """Standard deviation of the starting position around the origin."""
    goal_radius: float = Field(0.1, gt=0.0, le=0.5)
    """An episode succeeds this close to a goal; goals lie at distance 1."""
    speed: float = Field(0.12, gt=0.0, le=1.0)
    """Distance covered in one step by an action of length 1."""
    demo_shortfall: float = Field(0.14, ge=0.0, le=0.9)
    """Demonstrations aim up to this share short of their goal, so that the cloned policy fails part of the time."""
    expert_noise: float = Field(0.2, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed actions; the clean action is recorded."""
