"""Settings of the guard against numbers that run away."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section


class GuardConfig(Section):
    """When an update counts as diverged, and how often it is taken back.

    An update that diverged is undone and tried again with half the learning rates. So is one with a loss, a
    gradient or a weight that is not finite, whatever stands here.
    """

    max_rollbacks: int = Field(3, ge=0, le=100)
    """Updates taken back before training gives up."""
    max_kl: float = Field(5.0, gt=0.0, le=1000.0)
    """Largest approximate KL divergence, in nats, between the policy that played and the one that learns."""
    max_value_error: float = Field(100.0, gt=1.0, le=1e6)
    """Largest squared error of the critic, as a multiple of 1 + the mean square of the returns."""
