"""The `env` settings of Anymal."""

from pydantic import Field

from bmd_pipeline.config.schema import Section, Weight


class Options(Section):
    """Anymal: walk to one of four beacons, forward, left, back or right of the start."""

    horizon: int = Field(200, ge=1, le=10_000)
    """Time limit in control steps (20 per second)."""
    goal_radius: float = Field(0.25, gt=0.0, le=0.5)
    """Distance in metres between the base and a beacon that counts as success."""
    progress_scale: float = Field(1.0, ge=0.0, le=100.0)
    """Weight of the reward for progress towards the nearest beacon: the whole way pays about this much."""
    direction_weights: tuple[Weight, Weight, Weight, Weight] = (1.0, 1.0, 1.0, 1.0)
    """Reward on success at the beacon forward, left, back, right; unequal ones make some directions pay better."""
    expert_noise: float = Field(0.15, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed actions, correlated in time; the clean action is recorded."""
