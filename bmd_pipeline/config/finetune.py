"""Settings of fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.ppo import PPOConfig

METHODS = ("dppo", "res", "dsrl", "dppo-bmd", "res-bmd", "dsrl-bmd")
"""Fine-tuning methods; `-bmd` adds mode codes and the mutual-information regulariser."""


class CurriculumConfig(Section):
    """Short-to-long horizon: episodes grow from a share of the horizon to all of it."""

    start_fraction: float = Field(1.0, gt=0.0, le=1.0)
    """H_0 as a share of the task's horizon; 1 switches the curriculum off."""
    iterations: int = Field(1, ge=1, le=1_000_000)
    """Iterations until episodes have their full length."""


class DenoiserConfig(Section):
    """What `dppo` trains: the denoiser (arXiv 2409.00588)."""

    learning_rate: float = Field(3e-5, gt=0.0, le=1.0)
    """Learning rate of the denoiser; ten times this destroyed prototypes silently."""
    noise_floor: float = Field(0.1, gt=0.0, le=2.0)
    """Smallest standard deviation of a denoising step while exploring, in normalised units."""
    steps: int = Field(0, ge=0, le=1000)
    """Fine-tune only the last denoising steps; 0: all of them."""
    denoising_discount: float = Field(1.0, gt=0.0, le=1.0)
    """Discount of the advantage per denoising step before the last: noisier steps are less to blame."""


class ResidualConfig(Section):
    """What `res` trains: a bounded correction of the frozen policy's chunk (arXiv 2412.13630)."""

    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    """Learning rate of the residual."""
    scale: float = Field(0.3, gt=0.0, le=10.0)
    """Bound on the correction, in normalised action units."""
    initial_std: float = Field(0.37, gt=0.0, le=2.0)
    """Starting standard deviation before the bound."""
    hidden_sizes: tuple[int, ...] = Field((256, 256, 256), min_length=1, max_length=8)
    """Widths of its hidden layers."""
    progressive_iterations: int = Field(0, ge=0, le=1_000_000)
    """Iterations over which the share of explored decisions grows from 0 to 1; 0: all from the start."""


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
    denoiser: DenoiserConfig = DenoiserConfig()
    """The methods `dppo` and `dppo-bmd`."""
    residual: ResidualConfig = ResidualConfig()
    """The methods `res` and `res-bmd`."""
    regulariser: RegulariserConfig = RegulariserConfig()
    """λ and its bounds."""
    curriculum: CurriculumConfig = CurriculumConfig()
    """Growing horizon."""
    selection: SelectionConfig = SelectionConfig()
    """Which iteration is kept."""
    checkpoint_interval: int = Field(10, ge=1, le=1_000_000)
    """Iterations between two resumable checkpoints."""
