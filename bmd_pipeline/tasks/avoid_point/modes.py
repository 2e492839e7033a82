"""True modes of AvoidPoint: those of the course. For evaluation only."""

from bmd_pipeline.tasks.course.modes import LABELLINGS

__all__ = ["LABELLINGS"]
