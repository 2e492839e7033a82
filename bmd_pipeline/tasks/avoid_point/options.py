"""The `env` settings of AvoidPoint."""

from __future__ import annotations

from pydantic import Field

from bmd_pipeline.tasks.course.settings import CourseSettings


class Options(CourseSettings):
    """Settings of the obstacle course for a point."""

    horizon: int = Field(120, ge=1, le=300)
    """Time limit in control steps. At full speed the shortest way takes 53, the widest about 85; D3IL allows 300."""
