"""Settings of mode discovery."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Names, Once, Widths
from bmd_pipeline.config.ppo import PPOConfig


class InferenceConfig(Section):
    """The inference model q_φ(z|h), a classifier of track histories."""

    features: Names = ()
    """Track columns it sees; empty means the whole track."""
    scale: Literal["feature", "shared"] = "feature"
    """What features are divided by: each by its own standard deviation, or all by one, which suits features of one
    unit: what hardly varies then counts for little, and a policy of one mode is seen as such."""
    history_steps: int = Field(1, ge=1, le=64)
    """Points of the track it sees: the current one and earlier ones."""
    history_stride: int = Field(2, ge=1, le=256)
    """Policy steps between two of those points."""
    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    activation: Literal["silu", "relu", "mish", "tanh"] = "mish"
    """Its nonlinearity."""
    input_noise: float = Field(0.05, ge=0.0, le=10.0)
    """Standard deviation of the noise added to its normalised inputs in training, against over-fitting."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of Adam."""
    batch_size: int = Field(1024, ge=1, le=1_000_000)
    """Histories per gradient step."""
    steps_per_iteration: int = Field(20, ge=1, le=10_000)
    """published: gradient steps after each rollout."""
    fit_steps: int = Field(300, ge=1, le=1_000_000)
    """coded: gradient steps by which it learns from episodes of the taught policy, before it is frozen."""


class SteeringConfig(Section):
    """The steering policy π_ψ(w|s,z) over the input noise."""

    hidden_sizes: Widths = (256, 256, 256)
    """Widths of its hidden layers."""
    activation: Literal["silu", "relu", "mish", "tanh"] = "silu"
    """Its nonlinearity."""
    noise_components: int = Field(0, ge=0, le=256)
    """Discrete-cosine components of the chunk's noise that are steered; the rest stays N(0, I). 0: all."""
    max_noise: float = Field(2.0, gt=0.0, le=10.0)
    """Bound on each component of the steering mean: noise the policy never saw leads nowhere."""


class TeachingConfig(Section):
    """How the denoiser is taught its codes (ours): by more behaviour cloning, told the code of each demonstration."""

    steps: int = Field(2000, ge=1, le=10_000_000)
    """Gradient steps; every code is equally likely in a batch."""
    batch_size: int = Field(512, ge=1, le=1_000_000)
    """Windows per gradient step."""
    learning_rate: float = Field(3e-4, gt=0.0, le=1.0)
    """Peak learning rate of AdamW; decays to zero along a cosine. The codes' own tables learn ten times as fast."""
    strengths: Annotated[
        tuple[Annotated[float, Field(gt=0.0, le=10.0)], ...], Field(min_length=1, max_length=16), Once
    ] = (1.0, 1.5, 2.0)
    """How far the codes may be stretched from their mean afterwards. Each plays heldout_episodes episodes of its own;
    what succeeds as told most often is kept, the smallest of those that tie."""


class DiscoverConfig(Section):
    """Mode discovery: which behaviours there are, and how each is commanded."""

    form: Literal["coded", "published"] = "coded"
    """coded (ours): behaviours are clusters of the demonstrations, taught to the denoiser as codes. published: a
    steering policy over the noise of the frozen policy, found by the intrinsic reward alone, with reward and inference
    model as in arXiv 2605.11387; it also serves a policy that comes without demonstrations."""
    num_modes: int = Field(32, ge=2, le=1024)
    """Codes K; coded with clustering: density, the most there may be."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    clustering: Literal["density", "kmeans"] = "density"
    """coded: how demonstrations become behaviours. density: groups with gaps between them, found with their number
    (HDBSCAN). kmeans: num_modes of them, whether there are as many or not."""
    min_demonstrations: int = Field(30, ge=2, le=1_000_000)
    """density: demonstrations below which a group is no behaviour: gaps of a few are chance, and a code that has few to
    learn from succeeds rarely."""
    cluster_points: int = Field(12, ge=1, le=256)
    """coded: observations, evenly spaced over the demonstration, that describe it for clustering."""
    teaching: TeachingConfig = TeachingConfig()
    """coded: how the denoiser learns its codes."""
    hindsight_episodes: int = Field(1024, ge=8, le=10_000_000)
    """coded: episodes of the taught policy from which the inference model learns to tell codes apart."""
    warmup_iterations: int = Field(15, ge=1, le=100_000)
    """published: rounds E_wp on the intrinsic reward alone."""
    readout: Literal["mean", "sample"] = "mean"
    """published: how the steering policy is read when the discovery is measured: its mean, or a draw from it."""
    heldout_episodes: int = Field(1024, ge=8, le=1_000_000)
    """Episodes on which the discovery is measured."""
    min_information: float = Field(0.1, ge=0.0, le=10.0)
    """Held-out M in nats below which the run warns that it found no modes."""
    inference: InferenceConfig = InferenceConfig()
    """The inference model."""
    steering: SteeringConfig = SteeringConfig()
    """The steering policy, of the published form and of `dsrl`."""
    ppo: PPOConfig = PPOConfig()
    """published: PPO of the warm-up rounds."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.form == "published" and self.warmup_iterations <= self.ppo.value_warmup:
            raise ValueError(
                f"ppo.value_warmup must be < warmup_iterations ({self.warmup_iterations}), or the steering policy "
                f"never learns; got {self.ppo.value_warmup}"
            )
        if self.num_modes > self.num_envs:
            raise ValueError(f"num_modes must be <= num_envs ({self.num_envs}), got {self.num_modes}")
        return self
