"""The `env` settings of Lift."""

from pydantic import Field

from bmd_pipeline.config.schema import Section, Weight


class Options(Section):
    """Lift: a bar that is too thick to grasp but at its two ends."""

    horizon: int = Field(200, ge=1, le=10_000)
    """Time limit in control steps (20 per second)."""
    lift_height: float = Field(0.1, gt=0.02, le=0.3)
    """Height in metres of the bar's middle that counts as success; it lies at 0.02."""
    yaw_range_deg: float = Field(15.0, ge=0.0, le=45.0)
    """The bar starts turned by up to this from pointing at the robot."""
    progress_scale: float = Field(1.0, ge=0.0, le=100.0)
    """Weight of the reward for progress: coming near an end and lifting pay about this much together."""
    end_weights: tuple[Weight, Weight] = (1.0, 1.0)
    """Reward on success with the near end, the far end in hand; unequal ones make one end pay better."""
    expert_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed motions, correlated in time; the clean action is recorded."""
