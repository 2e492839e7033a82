"""Settings of proximal policy optimisation."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Widths
from bmd_pipeline.config.guard import GuardConfig


class PPOConfig(Section):
    """PPO (Schulman et al. 2017) with generalised advantage estimation."""

    gamma: float = Field(0.99, gt=0.0, le=1.0)
    """Discount per policy step (one executed chunk)."""
    gae_lambda: float = Field(0.95, ge=0.0, le=1.0)
    """λ of generalised advantage estimation."""
    clip_ratio: float = Field(0.2, gt=0.0, le=1.0)
    """Clip range ε of the probability ratio."""
    clip_value: float = Field(0.0, ge=0.0, le=100.0)
    """Clip range of the value update; 0 leaves it unclipped."""
    epochs: int = Field(4, ge=1, le=100)
    """Passes over each rollout."""
    minibatch_size: int = Field(1024, ge=8, le=10_000_000)
    """Decisions per gradient step; a rollout has at most num_envs times the decisions of the longest episode."""
    target_kl: float = Field(0.08, gt=0.0, le=10.0)
    """The policy stops updating on this rollout once the approximate KL exceeds 1.5 times this."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of the steering policy."""
    learning_rate_schedule: Literal["constant", "adaptive"] = "constant"
    """adaptive: where the KL bound stops the policy before half of a rollout's steps, its learning rate falls; where
    the KL stays below half of target_kl, it rises again, up to where it began."""
    value_learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of the critic."""
    value_warmup: int = Field(0, ge=0, le=10_000)
    """First iterations in which only the critic learns."""
    max_grad_norm: float = Field(1.0, gt=0.0, le=1000.0)
    """Gradient norm bound of each parameter group by itself: one shared bound starves a network."""
    entropy_weight: float = Field(0.0, ge=0.0, le=10.0)
    """Weight of the entropy bonus."""
    value_hidden_sizes: Widths = (256, 256)
    """Widths of the critic's hidden layers."""
    guard: GuardConfig = GuardConfig()
    """When an update is taken back."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.guard.max_kl <= 1.5 * self.target_kl:
            raise ValueError(
                f"guard.max_kl must be > 1.5 * target_kl ({1.5 * self.target_kl:g}), got {self.guard.max_kl:g}"
            )
        return self
