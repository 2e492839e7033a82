"""The `env` settings of Reach."""

from pydantic import Field

from bmd_pipeline.config.schema import Section, Weight


class Options(Section):
    """Reach: round a post, on either side and without touching it, for a goal behind it."""

    horizon: int = Field(100, ge=1, le=10_000)
    """Time limit in control steps (20 per second)."""
    goal_radius: float = Field(0.015, gt=0.0, le=0.2)
    """Distance in metres between fingertips and goal that counts as success."""
    progress_scale: float = Field(1.0, ge=0.0, le=100.0)
    """Weight of the reward for progress along the shortest way round the post: the whole way pays about this much."""
    side_weights: tuple[Weight, Weight] = (1.0, 1.0)
    """Reward on success after passing the post on the left, on the right; unequal ones make one side pay better."""
    expert_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed actions, correlated in time; the clean action is recorded."""
