"""Settings of the world that policies are fine-tuned and evaluated in, where it is not that of the demonstrations."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.config.base import Section


class Disturbance(Section):
    """How the world of fine-tuning, evaluation, curves and films of a policy differs from the world in which
    demonstrations are collected, the policy is pre-trained and modes are discovered. By default it does not differ.

    Actions are clipped to [-1, 1], then come gain, delay, noise and lock, in this order; the task clips what results.
    """

    action_noise: float = Field(0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise on every action, in the action's units; drawn anew at each control step."""
    action_gain: float = Field(1.0, ge=0.0, le=10.0)
    """Factor on every action."""
    action_delay: int = Field(0, ge=0, le=100)
    """Control steps by which actions come late; until the first arrives, the action is 0."""
    locked_action: int | None = Field(None, ge=0, le=1023)
    """Component of the action that is held at 0, as a locked joint is, counted from 0; null: none."""
    obs_noise: float = Field(0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise on observations, drawn anew at each control step; in units of the standard
    deviations over the demonstrations by which the policy normalises what it sees."""

    def describe(self) -> str:
        """What differs, as `action_delay=1`; empty where nothing does."""
        return ", ".join(f"{name}={value:g}" for name, value in self.model_dump(exclude_defaults=True).items())
