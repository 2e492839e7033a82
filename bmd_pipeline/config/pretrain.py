"""Settings of the diffusion policy and of its training by behaviour cloning."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bmd_pipeline.config.base import Section
from bmd_pipeline.config.fields import GivenPath, Widths


class PolicyConfig(Section):
    """Shape of the diffusion policy. Stored in its checkpoint.

    ```
    time        t-1      t      t+1   ...                    t+horizon-1
    observed  |--o-------o|                                                n_obs_steps, obs_stride apart
    predicted          |--a------a-- ... --------------------a|            horizon
    executed           |--a------a|                                        n_action_steps, then look again
    ```
    """

    horizon: int = Field(8, ge=1, le=256)
    """Actions predicted at once (the chunk)."""
    n_action_steps: int = Field(4, ge=1, le=256)
    """Actions of the chunk that are executed before the policy looks again."""
    n_obs_steps: int = Field(2, ge=1, le=16)
    """Observations the policy sees; earlier ones enter as differences to the current one."""
    obs_stride: int = Field(1, ge=1, le=64)
    """Control steps between two of those observations."""
    hidden_sizes: Widths = (512, 512, 512)
    """Widths of the denoiser's hidden layers."""
    activation: Literal["silu", "relu", "mish", "tanh"] = "silu"
    """Nonlinearity of the denoiser."""
    prediction: Literal["x0", "epsilon"] = "x0"
    """What the denoiser predicts: the clean chunk or the noise."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Noise schedule."""
    denoising_steps: int = Field(20, ge=1, le=1000)
    """Diffusion steps in training."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """ddim: few steps, deterministic given the starting noise (what steering needs); ddpm: all steps."""
    ddim_steps: int = Field(2, ge=1, le=1000)
    """Denoising steps of the DDIM sampler, evenly spaced."""
    ddim_timesteps: tuple[Annotated[int, Field(ge=0, lt=1000)], ...] = Field((), max_length=1000)
    """Diffusion steps that the DDIM sampler visits, falling; they replace ddim_steps."""
    clip_obs: float = Field(5.0, gt=0.0, le=1e6)
    """Bound on observations, in their standard deviations over the demonstrations: what hardly varies there may be a
    hundred of them away elsewhere, and networks answer such a number with anything."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.n_action_steps > self.horizon:
            raise ValueError(f"n_action_steps must be <= horizon ({self.horizon}), got {self.n_action_steps}")
        if self.ddim_steps > self.denoising_steps:
            raise ValueError(f"ddim_steps must be <= denoising_steps ({self.denoising_steps}), got {self.ddim_steps}")
        chosen = self.ddim_timesteps
        if list(chosen) != sorted(set(chosen), reverse=True):
            raise ValueError(f"ddim_timesteps must fall, got {list(chosen)}")
        if chosen and chosen[0] >= self.denoising_steps:
            raise ValueError(f"ddim_timesteps must be < denoising_steps ({self.denoising_steps}), got {chosen[0]}")
        return self


class PretrainSelectionConfig(Section):
    """When pre-training is done and which weights are kept, by rollouts on selection seeds, which evaluation never
    uses. The validation loss rises long before success stops to."""

    interval: int = Field(1000, ge=1, le=10_000_000)
    """Gradient steps between two rounds of rollouts."""
    episodes: int = Field(512, ge=0, le=1_000_000)
    """Episodes of a round, all at once. 0 plays none: training takes all its iterations and the last average is kept;
    for demonstrations without an environment, and for a base policy that is weak on purpose."""
    min_gain: float = Field(0.01, ge=0.0, le=1.0)
    """Success is flat, and training ends, if it gained less than this over the last quarter of the steps taken."""


class PretrainConfig(Section):
    """Behaviour cloning."""

    policy: PolicyConfig = PolicyConfig()
    """The diffusion policy."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the denoiser's matrices are multiplied in while it trains, for wide ones on devices with bfloat16 units;
    weights, losses and the trained policy stay float32."""
    iterations: int = Field(10_000, ge=1, le=10_000_000)
    """Gradient steps at most; fewer if success is flat before."""
    selection: PretrainSelectionConfig = PretrainSelectionConfig()
    """When it is done."""
    batch_size: int = Field(256, ge=1, le=1_000_000)
    """Windows per gradient step."""
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0)
    """Learning rate of AdamW, constant after its warm-up: training doesn't know beforehand how long it will take."""
    weight_decay: float = Field(1e-4, ge=0.0, le=1.0)
    """Weight decay of AdamW."""
    warmup_iterations: int = Field(100, ge=0, le=1_000_000)
    """Linear warm-up of the learning rate."""
    ema_decay: float = Field(0.995, ge=0.0, lt=1.0)
    """Decay per step of the exponential moving average of the weights; the average is what is kept."""
    validation_fraction: float = Field(0.05, ge=0.0, le=0.5)
    """Share of whole episodes held out for the validation loss."""
    max_rollbacks: int = Field(3, ge=0, le=100)
    """Times a loss that is not finite is answered by going back to the last good weights with half the learning
    rate, before training gives up."""
    log_interval: int = Field(500, ge=1, le=1_000_000)
    """Gradient steps between two log lines."""
    checkpoint_interval: int = Field(2_000, ge=1, le=10_000_000)
    """Gradient steps between two resumable checkpoints."""
    policy_folder: GivenPath | None = None
    """A policy that exists already, a folder with policy.safetensors and policy.json: it is checked and copied, nothing
    is trained, and no demonstrations are needed."""
