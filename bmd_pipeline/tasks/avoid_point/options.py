"""The `env` settings of AvoidPoint, and those that everything on the obstacle course shares."""

from typing import Annotated, Literal

from pydantic import Field

from bmd_pipeline.config.schema import Section


class CourseOptions(Section):
    """What pays on the course, what is seen of it, and how its experts err."""

    reward: Literal["plain", "shifted"] = "plain"
    """plain: crossing the finish line pays 1. shifted: it pays .25, and .25 more for each favoured gap on the way."""
    favoured_gaps: tuple[
        Annotated[int, Field(ge=0, le=1)], Annotated[int, Field(ge=0, le=2)], Annotated[int, Field(ge=0, le=3)]
    ] = (0, 1, 1)
    """The gap in each row that pays under `shifted`, counted from the left."""
    position_frequencies: int = Field(3, ge=0, le=8)
    """Sine and cosine of the position at this many octaves join the observation, so that a small network can tell
    places near a post apart; 0: position alone."""
    expert_noise: float = Field(0.4, ge=0.0, le=1.0)
    """Standard deviation of the noise on executed actions, correlated in time; the clean action is recorded."""


class Options(CourseOptions):
    """Settings of the obstacle course for a point."""

    horizon: int = Field(120, ge=1, le=300)
    """Time limit in control steps. At full speed the shortest way takes 53, the widest about 85; D3IL allows 300."""
