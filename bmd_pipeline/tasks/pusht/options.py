"""Settings of the PushT task."""

from pydantic import Field

from bmd_pipeline.config.schema import Section, Weight


class Options(Section):
    """PushT: ManiSkill's PushT-v1 with a planar action, turned either way from about half a turn off."""

    horizon: int = Field(200, ge=1, le=10_000)
    """Time limit in control steps (20 per second)."""
    yaw_range_deg: float = Field(30.0, ge=0.0, le=180.0)
    """The T starts turned by 180° plus or minus this from its goal; up to about 45° both ways stay feasible."""
    position_box: float = Field(1.0, ge=0.0, le=1.0)
    """Share of ManiSkill's box of start positions (0.2 m by 0.3 m), about its middle."""
    success_threshold: float = Field(0.9, gt=0.0, le=1.0)
    """Share of the goal's area that the T must cover; 0.9 is ManiSkill's own."""
    progress_scale: float = Field(1.0, ge=0.0, le=100.0)
    """Weight of the reward for progress: the whole way from a typical start pays about this much."""
    success_bonus: float = Field(1.0, ge=0.0, le=100.0)
    """Reward on success."""
    turn_weights: tuple[Weight, Weight] = (1.0, 1.0)
    """Factors on the whole reward while the T is turned clockwise, counter-clockwise of its start; unequal
    ones make one behaviour pay better."""
    expert_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Standard deviation of the noise on the actions that the expert executes; it records the clean ones."""
