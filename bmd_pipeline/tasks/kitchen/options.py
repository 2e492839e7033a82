"""The `env` settings of Kitchen."""

from pydantic import Field

from bmd_pipeline.config.schema import Section


class Options(Section):
    """Kitchen: two of three things are to be done, in any order."""

    horizon: int = Field(280, ge=1, le=10_000)
    """Time limit in control steps (12.5 per second)."""
    expert_noise: float = Field(0.1, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed actions, correlated in time; the clean action is recorded."""
