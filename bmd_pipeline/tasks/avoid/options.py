"""The `env` settings of Avoid."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.tasks.course.settings import CourseSettings


class Options(CourseSettings):
    """Settings of the obstacle course for a Panda with a stick."""

    horizon: int = Field(300, ge=1, le=10_000)
    """Time limit in control steps (20 per second). At full speed the shortest way takes about 55, the widest 90."""
