"""True modes of Avoid: those of the course. For evaluation only."""

from bmd_pipeline.tasks.course.modes import LABELLINGS

__all__ = ["LABELLINGS"]
