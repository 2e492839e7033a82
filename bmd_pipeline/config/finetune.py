"""Settings of fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.ppo import PPOConfig

METHODS = ("dsrl", "dsrl-bmd")
"""Fine-tuning methods; `-bmd` adds mode codes and the mutual-information regulariser."""


class CurriculumConfig(Section):
    """Short-to-long horizon: episodes grow from a share of the horizon to all of it."""

    start_fraction: float = Field(1.0, gt=0.0, le=1.0)
    """H_0 as a share of the task's horizon; 1 switches the curriculum off."""
    iterations: int = Field(1, ge=1, le=1_000_000)
    """Iterations until episodes have their full length."""


class RegulariserConfig(Section):
    """The mutual-information regulariser of the `-bmd` methods: r = r_env + λ·r_int."""

    mi_weight: float = Field(0.1, ge=0.0, le=1000.0)
    """λ."""
    combine: Literal["reward", "advantage"] = "reward"
    """What λ weighs. reward: r_env + λ·r_int, as published. advantage (ours): the two advantages, each
    standardised, from a value head each, so that λ doesn't depend on the scale of the reward."""
    floor: float = Field(-3.0, le=0.0, ge=-100.0)
    """Lower bound of log q(z|h) − log p(z): one hopeless step must not drown an episode."""


class SelectionConfig(Section):
    """Which iteration is kept: the best on selection seeds, which evaluation never uses."""

    interval: int = Field(20, ge=1, le=1_000_000)
    """Iterations between two selection rounds."""
    episodes: int = Field(512, ge=1, le=1_000_000)
    """Episodes of a selection round."""
    min_information_share: float = Field(0.8, ge=0.0, le=1.0)
    """With codes, an iteration qualifies only if its codes still tell this share of what discovery measured."""


class FinetuneConfig(Section):
    """Fine-tuning with PPO. The method is not a setting but part of the output's path."""

    iterations: int = Field(100, ge=1, le=1_000_000)
    """Rollout-and-update rounds."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    initial_std: float = Field(1.0, gt=0.0, le=2.0)
    """Starting standard deviation of a steering policy that discovery did not fit; 1 is the prior's."""
    readout: Literal["mean", "sample"] = "mean"
    """How a steering policy acts when it is deployed: its mean, or a draw from it."""
    ppo: PPOConfig = PPOConfig()
    """The optimiser."""
    regulariser: RegulariserConfig = RegulariserConfig()
    """λ and its bounds."""
    curriculum: CurriculumConfig = CurriculumConfig()
    """Growing horizon."""
    selection: SelectionConfig = SelectionConfig()
    """Which iteration is kept."""
    checkpoint_interval: int = Field(10, ge=1, le=1_000_000)
    """Iterations between two resumable checkpoints."""
