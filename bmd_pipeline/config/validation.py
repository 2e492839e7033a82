"""Settings of the validation of discovered modes."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Name

GENERIC = ("noise", "delay", "weak", "locked")
"""Disturbances that every task knows, by name."""


class ValidationConfig(Section):
    """How discovered modes are put to the test on the frozen policy, in `evaluate.episodes` episodes of each kind."""

    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    """Level at which the base policy is said to have more than one way."""
    power: float = Field(0.9, ge=0.5, lt=1.0)
    """Probability with which the smallest second way that is named would have been found."""
    min_share: float = Field(0.2, gt=0.0, le=0.5)
    """Share of a second way that must be found with that probability, or nothing is said where none is."""
    obs_noise: float = Field(0.1, ge=0.0, le=10.0)
    """`noise`: Gaussian noise on observations, in their standard deviations over the demonstrations; 0: not tried."""
    action_delay: int = Field(1, ge=0, le=100)
    """`delay`: control steps by which actions come late, the action being 0 until then; 0: not tried."""
    action_gain: float = Field(0.8, ge=0.0, le=10.0)
    """`weak`: factor on every action; 1: not tried."""
    locked_action: int | None = Field(0, ge=0, le=1023)
    """`locked`: component of the action that is held at 0, as a locked joint is; null: not tried."""
    dynamics: dict[Name, dict[str, Any]] = Field({}, max_length=20)
    """Further disturbances, by name: the settings below `task.env` to change, as `{hurried: {horizon: 100},
    gust: {disturbance: {action_noise: 0.5}}}`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if taken := sorted(set(self.dynamics) & set(GENERIC)):
            raise ValueError(f"dynamics must have names of their own, got {taken[0]!r}")
        return self

    def disturbances(self) -> list[str]:
        """Names of all that is tried."""
        tried = (self.obs_noise > 0, self.action_delay > 0, self.action_gain != 1, self.locked_action is not None)
        return [name for name, chosen in zip(GENERIC, tried, strict=True) if chosen] + list(self.dynamics)
