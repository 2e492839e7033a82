"""Settings of fine-tuning."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Widths
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
    """What `dppo` trains: the denoiser (arXiv 2409.00588). Defaults are its authors' choices, unless said."""

    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """Learning rate of the denoiser."""
    clip_ratio: float = Field(0.01, gt=0.0, le=1.0)
    """Clip range ε of a denoising step's probability ratio, which is that of a dimension's mean log-probability and so
    close to 1."""
    target_kl: float = Field(1.0, gt=0.0, le=10.0)
    """The denoiser stops updating on a rollout once the approximate KL of a denoising step exceeds 1.5 times this; as
    log_prob_reduction has it, of a dimension or of the whole."""
    eta: float = Field(1.0, ge=0.0, le=1.0)
    """η of the DDIM sampler while exploring: the share of the posterior's noise that every denoising step adds."""
    acting_eta: float = Field(0.0, ge=0.0, le=1.0)
    """η of the DDIM sampler when deployed; 0 draws nothing but the starting noise."""
    noise_floor: float = Field(0.1, gt=0.0, le=2.0)
    """Smallest standard deviation of a denoising step while exploring, in normalised units."""
    log_prob_steps: Literal["executed", "chunk"] = "executed"
    """Which actions of a chunk count in its log-probability: those that are executed, or all."""
    log_prob_reduction: Literal["mean", "sum"] = "mean"
    """mean: the log-probability per dimension, so that ratios and KL do not depend on the size of a chunk; sum: that of
    the whole, whose ratios soon leave the clip range."""
    steps: int = Field(0, ge=0, le=1000)
    """Fine-tune only the last denoising steps; 0: all of them."""
    denoising_discount: float = Field(0.95, gt=0.0, le=1.0)
    """Discount of the advantage per denoising step before the last: noisier steps are less to blame."""


class ResidualConfig(Section):
    """What `res` trains: a bounded correction of each action of the frozen policy (arXiv 2412.13630)."""

    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    """Learning rate of the residual."""
    scale: float = Field(0.3, gt=0.0, le=10.0)
    """Bound on the correction, in normalised action units."""
    initial_std: float = Field(0.37, gt=0.0, le=2.0)
    """Starting standard deviation before the bound."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    progressive_iterations: int = Field(20, ge=0, le=1_000_000)
    """Iterations over which the share of corrected steps grows from 0 to 1 while exploring; 0: all from the start."""


class RegulariserConfig(Section):
    """The mutual-information regulariser of the `-bmd` methods.

    published: the reward is r_env + λ·r_int. coded (ours): λ weighs the advantages of the two, each standardised and
    from a value head of its own, so that it does not depend on the scale of the reward.
    """

    mi_weight: float = Field(0.5, ge=0.0, le=1000.0)
    """λ."""
    gamma: float | None = Field(None, gt=0.0, le=1.0)
    """coded: discount of the intrinsic stream; null: that of the environment's reward. A behaviour may be decided long
    before it shows."""
    gae_lambda: float | None = Field(None, ge=0.0, le=1.0)
    """coded: λ of its generalised advantage estimation; null: the environment's."""
    controller: Literal["constant", "linear", "cosine", "dual", "occupancy"] = "constant"
    """Who decides λ. constant: mi_weight, as published. linear, cosine: a schedule. Ours: dual holds the mutual
    information above a share of what was discovered; occupancy reacts when discovered behaviours are being lost."""
    final_weight: float = Field(0.1, ge=0.0, le=1000.0)
    """Where a schedule ends."""
    schedule_iterations: int = Field(100, ge=1, le=1_000_000)
    """Iterations that a schedule takes."""
    min_weight: float = Field(0.1, gt=0.0, le=1000.0)
    """Smallest λ of dual and occupancy."""
    max_weight: float = Field(2.0, gt=0.0, le=1000.0)
    """Largest λ of dual and occupancy. In the coded form, at 1 both streams weigh the same."""
    information_share: float = Field(0.9, gt=0.0, le=1.0)
    """dual: share of the discovered information to hold."""
    dual_step: float = Field(1.0, gt=0.0, le=100.0)
    """dual: change of log λ per nat of violation and iteration."""
    occupancy_share: float = Field(0.8, gt=0.0, le=1.0)
    """occupancy: share of its starting occupancy below which a behaviour begins to count as lost."""
    lost_tolerance: float = Field(0.01, ge=0.0, lt=1.0)
    """occupancy: share of the behaviours that may be lost; λ rises above it, and falls below by as little as it is."""
    success_margin: float = Field(0.03, gt=0.0, le=1.0)
    """occupancy: λ falls while success is this far below its best."""
    occupancy_step: float = Field(5.0, gt=0.0, le=100.0)
    """occupancy: change of log λ in an iteration, per share that is lost beyond the tolerance, or of success that is
    beyond the margin."""
    smoothing_episodes: int = Field(512, ge=1, le=10_000_000)
    """dual, occupancy: how many episodes, about, the running means look back on. Few let noise decide; many lag."""
    inference_steps: int | None = Field(None, ge=0, le=10_000)
    """Gradient steps of the inference model after each rollout; null: none in the coded form, where hindsight has
    taught it, and as many as in discovery in the published one."""
    floor: float = Field(-3.0, le=0.0, ge=-100.0)
    """Ours: lower bound of log q(z|h) − log p(z) where it is paid; one hopeless step must not drown an episode."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_weight > self.max_weight:
            raise ValueError(f"min_weight must be <= max_weight ({self.max_weight}), got {self.min_weight}")
        return self


class SelectionConfig(Section):
    """Which iteration is kept: the best on selection seeds, which evaluation never uses."""

    interval: int = Field(20, ge=1, le=1_000_000)
    """Iterations between two selection rounds."""
    episodes: int = Field(512, ge=1, le=1_000_000)
    """Episodes of a selection round."""
    min_obeyed_share: float = Field(0.9, ge=0.0, le=1.0)
    """With codes (ours), an iteration qualifies only if they are obeyed at least this share as often as before
    fine-tuning, and no code succeeds significantly less often; 0: success alone decides."""


class FinetuneConfig(Section):
    """Fine-tuning with PPO. The method is not a setting but part of the output's path."""

    iterations: int = Field(100, ge=1, le=1_000_000)
    """Rollout-and-update rounds."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    initial_std: float = Field(1.0, gt=0.0, le=2.0)
    """Starting standard deviation of a steering policy that discovery did not fit; 1 is the prior's."""
    target_entropy: float | None = Field(0.0, ge=-5.0, le=1.4)
    """Nats per steered dimension that the spread of a steering policy shall not fall below (1.4 is the prior's): as in
    DSRL, the weight of an entropy bonus adapts to that. null: no such bonus."""
    feed_codes: bool = True
    """coded: each code is a task of its own: advantages are standardised within a code, and codes are drawn the more
    often the more they fail, so that no weak behaviour starves. false: codes in equal numbers, advantages pooled."""
    readout: Literal["mean", "sample", "auto"] = "mean"
    """How a steering policy acts when it is deployed: by its mean, by a draw from it, or (auto, ours) by what succeeds
    more often on the selection episodes. The mean of one that still resembles the prior may lead nowhere."""
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
    snapshot_interval: int = Field(0, ge=0, le=1_000_000)
    """Iterations between two snapshots that are kept for `bmd-pipeline curve`; 0 keeps none."""
    checkpoint_interval: int = Field(10, ge=1, le=1_000_000)
    """Iterations between two resumable checkpoints."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ppo.value_warmup >= self.iterations:
            raise ValueError(
                f"ppo.value_warmup must be < iterations ({self.iterations}), or the policy never learns; "
                f"got {self.ppo.value_warmup}"
            )
        if self.ppo.guard.max_kl <= 1.5 * self.denoiser.target_kl:
            raise ValueError(
                f"ppo.guard.max_kl must be > 1.5 * denoiser.target_kl ({1.5 * self.denoiser.target_kl:g}), "
                f"got {self.ppo.guard.max_kl:g}"
            )
        return self
