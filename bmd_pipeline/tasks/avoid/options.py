"""The `env` settings of Avoid."""

from pydantic import Field

from bmd_pipeline.tasks.avoid_point.options import CourseOptions


class Options(CourseOptions):
    """Settings of the obstacle course for a Panda with a stick."""

    horizon: int = Field(300, ge=1, le=10_000)
    """Time limit in control steps (20 per second). At full speed the shortest way takes about 55, the widest 90."""
