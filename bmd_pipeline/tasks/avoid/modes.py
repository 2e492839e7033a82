"""True modes of Avoid: those of the course. For evaluation only."""

from bmd_pipeline.tasks.avoid_point.modes import LABELLINGS as LABELLINGS
