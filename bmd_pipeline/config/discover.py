"""Settings of mode discovery."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import Names, Widths
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
    steps_per_iteration: int = Field(20, ge=0, le=10_000)
    """Gradient steps after each rollout; 0 freezes it."""


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


class CommitConfig(Section):
    """Settings of the strategy `held`: a few noise dimensions chosen once an episode and released on commitment."""

    noise_components: int = Field(1, ge=1, le=16)
    """Discrete-cosine components of the chunk's noise that are held."""
    exploration_scales: tuple[Annotated[float, Field(gt=0.0, le=10.0)], ...] = Field(
        (1.0, 1.5, 2.0), min_length=1, max_length=64
    )
    """Standard deviations of the held noise while exploring, shared out over the environments."""
    max_norm: float = Field(3.0, gt=0.0, le=10.0)
    """Largest norm of a held noise vector; larger ones leave what the policy knows."""
    norm_penalty: float = Field(0.1, ge=0.0, le=10.0)
    """Weight α in log p(z|s0,u) − α|u|²/2, by which the held noise u is chosen."""
    distance: float = Field(0.3, gt=0.0, le=10.0)
    """The noise is released once a feature has moved this far from its start, in its standard deviations."""
    min_margin: float = Field(0.2, ge=0.0, lt=1.0)
    """Episodes whose two nearest clusters are closer in distance than this share are left out."""
    folds: int = Field(5, ge=2, le=20)
    """Cross-validation folds of the selector, which is their ensemble."""
    selector_steps: int = Field(800, ge=1, le=100_000)
    """Gradient steps of each fold's selector."""


class DiscoverConfig(Section):
    """Mode discovery on the frozen policy."""

    num_modes: int = Field(32, ge=2, le=1024)
    """Codes K; with clustering: density, the most there may be."""
    strategy: Literal["unseeded", "seeded", "held"] = "seeded"
    """unseeded: intrinsic reward only, as published. Ours: seeded, start from clusters of the base policy's
    successful episodes; held, clusters of episodes with episode-constant noise, for contact-rich tasks."""
    reward: Literal["per_step", "telescoped"] = "telescoped"
    """per_step: λ·log q at each step, as published. telescoped (ours): its difference, so that ending an
    episode in success costs nothing."""
    num_envs: int = Field(512, ge=1, le=1_000_000)
    """Environments per rollout."""
    seed_episodes: int = Field(3072, ge=16, le=10_000_000)
    """Episodes of the base policy that are clustered (seeded, held)."""
    clustering: Literal["density", "kmeans"] = "density"
    """How successful episodes become behaviours (seeded, held). density: groups with gaps between them, found with
    their number (HDBSCAN). kmeans: num_modes of them, whether there are as many or not."""
    min_cluster_share: float = Field(0.0025, ge=0.0, le=0.5)
    """density: share of the successful episodes below which a group is no behaviour."""
    cluster_points: int = Field(12, ge=1, le=256)
    """Points, evenly spaced over the episode, that describe it for clustering."""
    steering_fit_steps: int = Field(600, ge=1, le=1_000_000)
    """Maximum-likelihood steps of the steering policy on the clustered episodes (seeded)."""
    inference_fit_steps: int = Field(300, ge=1, le=1_000_000)
    """Cross-entropy steps of the inference model on the clustered episodes (seeded, held)."""
    warmup_iterations: int = Field(15, ge=0, le=100_000)
    """Rounds E_wp on the intrinsic reward alone (unseeded, seeded)."""
    readout: Literal["mean", "sample"] = "mean"
    """How the steering policy is read when the discovery is measured: its mean, or a draw from it."""
    heldout_episodes: int = Field(1024, ge=8, le=1_000_000)
    """Episodes on which the reported multimodality M is measured."""
    min_information: float = Field(0.1, ge=0.0, le=10.0)
    """Held-out M in nats below which the run warns that it found no modes."""
    inference: InferenceConfig = InferenceConfig()
    """The inference model."""
    steering: SteeringConfig = SteeringConfig()
    """The steering policy."""
    commit: CommitConfig = CommitConfig()
    """The strategy `held`."""
    ppo: PPOConfig = PPOConfig()
    """PPO of the warm-up rounds."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.strategy == "unseeded" and self.warmup_iterations == 0:
            raise ValueError("warmup_iterations must be >= 1 with strategy 'unseeded', got 0")
        if self.strategy != "held" and 0 < self.warmup_iterations <= self.ppo.value_warmup:
            raise ValueError(
                f"ppo.value_warmup must be < warmup_iterations ({self.warmup_iterations}), or the steering policy "
                f"never learns; got {self.ppo.value_warmup}"
            )
        if self.strategy == "unseeded" and self.inference.steps_per_iteration == 0:
            raise ValueError(
                "inference.steps_per_iteration must be >= 1 with strategy 'unseeded': q learns in no other way; got 0"
            )
        if self.strategy != "unseeded" and self.seed_episodes < self.num_modes:
            raise ValueError(
                f"seed_episodes must be >= num_modes ({self.num_modes}) with strategy {self.strategy!r}: they are "
                f"clustered into modes; got {self.seed_episodes}"
            )
        if self.num_modes > self.num_envs:
            raise ValueError(f"num_modes must be <= num_envs ({self.num_envs}), got {self.num_modes}")
        steered, held = self.steering.noise_components, self.commit.noise_components
        if self.strategy == "held" and 0 < steered < held:
            raise ValueError(
                f"steering.noise_components must be 0 or >= commit.noise_components ({held}), got {steered}"
            )
        return self
